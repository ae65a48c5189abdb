//! What do the demonstration's upstreams answer? Who they are, and the request as it came to them.

use crate::lifecycle::Tasks;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

/// Starts an upstream on a free port of 127.0.0.1, on a thread of its own that ends with the process.
pub(super) fn start(version: &'static str) -> io::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("echo-{version}"))
        .spawn(move || runtime.block_on(accept(socket, version)))?;
    Ok(address)
}

async fn accept(socket: std::net::TcpListener, version: &'static str) {
    let (tasks, _ending) = Tasks::new();
    let Ok(listener) = tokio::net::TcpListener::from_std(socket) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let serve = http1::Builder::new().serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| async move { Ok::<_, Infallible>(answer(version, &request)) }),
        );
        let connection = async move {
            // A client that goes away is no news to an echo.
            let _ = serve.await;
        };
        tasks.spawn_passing("echo connection", connection).detach();
    }
}

fn answer(version: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut text = format!("shop {version} answers {} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("  {name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
