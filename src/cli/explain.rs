//! What would become of a request?

use super::ask::ask;
use super::{ConfigArgs, Format, offline};
use crate::snapshot::{self, ExplainRequest};
use std::io::{self, Write};
use std::process::ExitCode;

/// Flags of `explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate explain GET http://shop.example.com/api/
  tidegate explain --config gate.yaml POST https://desk.example.com/api/ -H 'x-api-key: 0123'
  tidegate explain --admin 127.0.0.1:9901 GET http://shop.example.com/   as the running proxy sees it")]
pub struct ExplainArgs {
    /// Configuration to read
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Ask the running proxy at this admin address (or unix:PATH) instead of reading files
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    pub admin: Option<String>,
    /// Method of the request
    pub method: String,
    /// URL of the request
    pub url: String,
    /// A header of the request; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Address that the request comes from; default: 127.0.0.1
    #[arg(long, value_name = "IP")]
    pub source: Option<String>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Prints the answer.
pub(super) fn explain(args: &ExplainArgs, out: &mut dyn Write) -> io::Result<ExitCode> {
    let answer = match &args.admin {
        Some(admin) => remote(admin, args),
        None => local(args),
    };
    super::print(answer, out)
}

fn local(args: &ExplainArgs) -> Result<String, ExitCode> {
    let headers: Vec<&str> = args.headers.iter().map(String::as_str).collect();
    let request = ExplainRequest::parse(&args.method, &args.url, &headers, args.source.as_deref())
        .map_err(|error| super::fail(&error.to_string()))?;
    let explanation = snapshot::explain(&offline::snapshot(&args.config)?, &request);
    Ok(match args.format {
        Format::Text => explanation.to_string(),
        Format::Json => format!("{:#}", serde_json::json!(explanation)),
    })
}

fn remote(admin: &str, args: &ExplainArgs) -> Result<String, ExitCode> {
    let mut query = vec![("method", args.method.as_str()), ("url", args.url.as_str())];
    query.extend(args.headers.iter().map(|header| ("header", header.as_str())));
    query.extend(args.source.iter().map(|source| ("client", source.as_str())));
    query.extend((args.format == Format::Text).then_some(("format", "text")));
    ask(admin, "/api/v1/explain", &query)
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use std::fs;

    #[test]
    fn files_are_explained_with_what_did_not_match() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("routes.yaml");
        fs::write(&file, "a.test/api/: api\na.test/: web\nclusters: { api: 127.0.0.1:9, web: 127.0.0.1:9 }\n").unwrap();
        let line = format!("explain --routes {} GET http://a.test:8080/api/x", file.display());
        let text = printed(&line);
        assert!(text.starts_with("forwarded to api\n") && text.contains("endpoint 127.0.0.1:9 healthy"), "{text}");
        assert!(text.contains("comes first"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&printed(&format!("{line} --format json"))).unwrap();
        assert_eq!(json["action"]["does"], "forward");
        assert_eq!(printed("explain GET ftp://a.test/"), "", "what is wrong is on standard error");
    }
}
