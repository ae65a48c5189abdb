//! Is the certificate of a Secret served, its next one too, and a wrong one never?

use crate::beside;
use crate::harness::gate::Gate;
use crate::harness::pki::{Authority, Identity};
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{LONG, SOON, eventually, holds};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    beside!(a_secret_that_is_rotated_is_served_within_a_second),
    beside!(a_secret_that_is_wrong_leaves_the_certificate_before_it),
    beside!(a_secret_that_comes_after_its_route_is_served),
    beside!(a_secret_that_is_not_there_costs_its_own_host_alone),
    beside!(an_ingress_of_another_namespace_has_tls_once_its_owner_gives_the_secret),
    beside!(clients_of_a_host_are_verified_by_the_authorities_of_a_secret_and_by_the_next_ones),
    beside!(an_upstream_is_verified_by_the_authorities_of_a_secret_and_by_the_next_ones),
];

const HOST: &str = "shop.test";

/// A route with TLS by the Secret `shop-cert`, and a gate.
async fn secured(test: &Test) -> Gate {
    test.deploy("web", 1).await;
    test.routes("shop", &route(test)).await;
    test.gate("node-a").start().await
}

fn route(test: &Test) -> String {
    format!("hosts: [{HOST}]\ntls: shop-cert\nroutes: [{{ path: /, to: {} }}]\n", test.to("web"))
}

async fn shown(gate: &Gate, authority: &Authority) -> Result<CertificateDer<'static>, String> {
    let answer = gate.get_tls(HOST, "/", authority.trusted()).await?.expect(200)?;
    answer.certificate.ok_or_else(|| "no certificate".into())
}

fn first(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(identity.chain.as_bytes()).unwrap()
}

async fn serves(gate: &Gate, authority: &Authority, identity: &Identity) {
    let wanted = first(identity);
    eventually(SOON, || async { holds(shown(gate, authority).await? == wanted, || "another certificate".into()) })
        .await;
}

async fn a_secret_that_is_rotated_is_served_within_a_second(test: Test) {
    let authority = Authority::new("test");
    let (old, new) = (authority.issue(&[HOST]), authority.issue(&[HOST]));
    test.certificate("shop-cert", &old).await;
    let gate = secured(&test).await;
    serves(&gate, &authority, &old).await;
    test.certificate("shop-cert", &new).await;
    let changed = Instant::now();
    serves(&gate, &authority, &new).await;
    assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());
}

async fn a_secret_that_is_wrong_leaves_the_certificate_before_it(test: Test) {
    let authority = Authority::new("test");
    let right = authority.issue(&[HOST]);
    test.certificate("shop-cert", &right).await;
    let gate = secured(&test).await;
    serves(&gate, &authority, &right).await;
    let other = authority.issue(&[HOST]);
    let mixed = Identity { chain: right.chain.clone(), key: other.key.clone() };
    let none = Identity { chain: "no certificate".into(), key: other.key };
    let wrong = [mixed, none, authority.issue_expired(&[HOST])];
    for identity in wrong {
        test.certificate("shop-cert", &identity).await;
        test.problem_of(&gate, "Secret").await;
        assert!(shown(&gate, &authority).await.unwrap() == first(&right));
    }
    // The type of a Secret cannot be changed: it is another one by the same name.
    let files = ["--from-literal=tls.crt=x", "--from-literal=tls.key=x"];
    test.kubectl(&["delete", "secret", "shop-cert"]).await;
    test.kubectl(&["create", "secret", "generic", "shop-cert", files[0], files[1]]).await;
    let problem = test.problem_of(&gate, "Opaque").await;
    assert!(problem.contains("kubernetes.io/tls"), "{problem}");
    test.kubectl(&["delete", "secret", "shop-cert"]).await;
    test.certificate("shop-cert", &right).await;
    eventually(SOON, || async {
        let problems = gate.api("problems").await.to_string();
        holds(!problems.contains("Secret/"), || problems.clone())
    })
    .await;
}

async fn a_secret_that_comes_after_its_route_is_served(test: Test) {
    let authority = Authority::new("test");
    let gate = secured(&test).await;
    assert!(shown(&gate, &authority).await.is_err());
    let identity = authority.issue(&[HOST]);
    test.certificate("shop-cert", &identity).await;
    serves(&gate, &authority, &identity).await;
    test.kubectl(&["delete", "secret", "shop-cert"]).await;
    test.certificate("shop-cert", &identity).await;
    serves(&gate, &authority, &identity).await;
}

async fn a_secret_that_is_not_there_costs_its_own_host_alone(test: Test) {
    let authority = Authority::new("test");
    let identity = authority.issue(&["other.test"]);
    test.certificate("other-cert", &identity).await;
    let web = test.to("web");
    let other = format!("hosts: [other.test]\ntls: other-cert\nroutes: [{{ path: /, to: {web} }}]\n");
    test.routes("other", &other).await;
    let gate = secured(&test).await;
    eventually(SOON, || async { gate.get_tls("other.test", "/", authority.trusted()).await?.expect(200) }).await;
    assert!(gate.get_tls(HOST, "/", authority.trusted()).await.is_err());
    let problem = test.problem_of(&gate, "shop-cert").await;
    assert!(problem.contains("shop-cert"), "{problem}");
}

async fn an_ingress_of_another_namespace_has_tls_once_its_owner_gives_the_secret(test: Test) {
    let (authority, class) = (Authority::new("test"), &test.namespace);
    let shop = Test::named("shop", &format!("{class}-shop"), test.cluster.clone()).await.unwrap();
    test.remove_at_end(format!("namespace/{}", shop.namespace));
    test.remove_at_end(format!("ingressclass/{class}"));
    // The default class: the Ingress names none.
    test.apply(format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: {class}\n  annotations: {{ ingressclass.kubernetes.io/is-default-class: \"true\" }}\nspec: {{ controller: tidegate.io/{class} }}"
    ))
    .await;
    shop.endpoints("web", &[(test.cluster.node("node-b").pod(45), "node-b")]).await;
    shop.certificate("shop-cert", &authority.issue(&[HOST])).await;
    let backend = "backend: { service: { name: web, port: { number: 80 } } }";
    shop.apply(format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: web }}\nspec:\n  tls: [{{ hosts: [{HOST}], secretName: shop-cert }}]\n  rules: [{{ host: {HOST}, http: {{ paths: [{{ path: /, pathType: Prefix, {backend} }}] }} }}]"
    ))
    .await;
    let gate = test.gate("node-a").start().await;
    gate.answers(HOST, "/", 200).await;
    let refused = gate.get_tls(HOST, "/", authority.trusted()).await.unwrap_err();
    let problem = test.problem_of(&gate, "may not be read").await;
    assert!(problem.contains("shop-cert"), "{problem} {refused}");
    let account = format!("--serviceaccount={}:tidegate", test.namespace);
    shop.kubectl(&["create", "rolebinding", "tidegate-secrets", "--clusterrole=tidegate-secrets", &account]).await;
    // A refusal is asked again after some seconds.
    eventually(LONG, || async { gate.get_tls(HOST, "/", authority.trusted()).await?.expect(200) }).await;
}

async fn clients_of_a_host_are_verified_by_the_authorities_of_a_secret_and_by_the_next_ones(test: Test) {
    let (authority, old, new) = (Authority::new("test"), Authority::new("old"), Authority::new("new"));
    let of = |signer: &Authority| authority.trusted_by(&signer.issue_client("alice", None));
    let (by_old, by_new) = (of(&old), of(&new));
    test.certificate("shop-cert", &authority.issue(&[HOST])).await;
    test.authorities("clients", &old.pem).await;
    test.endpoints("web", &[(test.cluster.node("node-b").pod(46), "node-b")]).await;
    let tls = "{ certificate: shop-cert, client_auth: { ca: clients } }";
    test.routes("shop", &route(&test).replace("shop-cert", tls)).await;
    let gate = test.gate("node-a").start().await;
    // The same client each time, with the sessions that it keeps: none may outlive what let it in.
    let lets_in = async |client: &std::sync::Arc<rustls::ClientConfig>| {
        gate.get_tls(HOST, "/", client.clone()).await.and_then(|answer| answer.expect(200)).map(drop)
    };
    eventually(SOON, || lets_in(&by_old)).await;
    for stranger in [&authority.trusted(), &by_new] {
        lets_in(stranger).await.unwrap_err();
    }
    test.authorities("clients", &format!("{}{}", old.pem, new.pem)).await;
    eventually(SOON, || lets_in(&by_new)).await;
    lets_in(&by_old).await.unwrap();
    test.authorities("clients", &new.pem).await;
    eventually(SOON, || async { holds(lets_in(&by_old).await.is_err(), || "the old ones still let in".into()) }).await;
    lets_in(&by_new).await.unwrap();
    lets_in(&authority.trusted()).await.unwrap_err();
    // What is no authority leaves those before it, and opens nothing.
    test.authorities("clients", "no certificate").await;
    test.problem_of(&gate, "clients").await;
    lets_in(&by_new).await.unwrap();
    lets_in(&authority.trusted()).await.unwrap_err();
}

async fn an_upstream_is_verified_by_the_authorities_of_a_secret_and_by_the_next_ones(test: Test) {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let pod = test.cluster.node("node-b").pod(47);
    let shows = |signer: &Authority| {
        test.cluster.echoes.identities.show(pod, &signer.issue(&["web.inside"]), None);
        // Connections that stand were verified when they were made.
        test.cluster.echoes.kill(pod).unwrap();
        test.cluster.echoes.revive(pod).unwrap();
    };
    test.endpoints("web", &[(pod, "node-b")]).await;
    let web = test.to("web");
    let settings = format!("clusters: {{ \"{web}\": {{ tls: {{ ca: inside, server_name: web.inside }} }} }}\n");
    test.routes("shop", &format!("{HOST}/: {web}\n{settings}")).await;
    shows(&old);
    let gate = test.gate("node-a").start().await;
    // Before they are there nothing is sent.
    gate.answers(HOST, "/", 503).await;
    test.authorities("inside", &old.pem).await;
    assert!(gate.answers(HOST, "/", 200).await.echo().unwrap().tls.is_some());
    shows(&new);
    gate.answers(HOST, "/", 502).await;
    test.authorities("inside", &format!("{}{}", old.pem, new.pem)).await;
    gate.answers(HOST, "/", 200).await;
    shows(&old);
    gate.answers(HOST, "/", 200).await;
    test.authorities("inside", &new.pem).await;
    gate.answers(HOST, "/", 502).await;
    shows(&new);
    gate.answers(HOST, "/", 200).await;
}
