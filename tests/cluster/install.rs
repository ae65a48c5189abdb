//! Do the lines of README's "Install" work as they stand there, one after the other?
//!
//! All but those that make the image and bring it to the nodes: `tests/image.rs` makes one and runs it. The kubelet of these nodes starts
//! no container; what a pod of the DaemonSet would run is started here, with the token of the deployed ServiceAccount.

use crate::alone;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use std::path::Path;
use std::process::Command;

pub const CASES: &[Case] = &[alone!(the_lines_of_readme_install_a_gate_that_serves_a_route)];

const README: &str = include_str!("../../README.md");
/// Beginnings of lines that are about the image.
const IMAGE: [&str; 3] = ["make image", "sudo ctr ", "skopeo copy "];

async fn the_lines_of_readme_install_a_gate_that_serves_a_route(test: Test) {
    let shop = Test::named("shop", "shop", test.cluster.clone()).await.unwrap();
    test.remove_at_end("namespace/shop".into());
    test.remove_at_end("namespace/tidegate".into());
    let pod = test.cluster.node("node-b").pod(41);
    shop.endpoints("web", &[(pod, "node-b")]).await;
    shop.apply(SERVICE_OF_README).await;
    let section = README.split("\n## ").find(|section| section.starts_with("Install\n")).unwrap();
    let (shell, yaml) = (blocks(section, "sh"), blocks(section, "yaml"));
    let [by_kustomize, by_helm, route] = shell.as_slice() else { panic!("three blocks of commands: {shell:?}") };
    let editor = editor(&test, &yaml[0]);
    for (install, uninstall) in [
        (by_kustomize, "kubectl delete -k deploy/kustomize/base"),
        (by_helm, "helm uninstall tidegate -n tidegate --wait"),
    ] {
        assert!(include_str!("../../deploy/README.md").contains(uninstall.trim_end_matches(" --wait")), "{uninstall}");
        run_all(&test, install, &editor, "");
        let deployed = Test::within("deployed", "tidegate", test.cluster.clone()).await.unwrap();
        let gate = deployed.gate("node-a").deployed().start().await;
        let said = run_all(&test, route, &editor, &gate.http().ip().to_string());
        assert!(said.contains(&pod.to_string()), "not answered by {pod}: {said}");
        drop(gate);
        run(&test, uninstall, &editor);
    }
}

/// The Service of the second route.
const SERVICE_OF_README: &str =
    "apiVersion: v1\nkind: Service\nmetadata: { name: api }\nspec: { ports: [{ name: http, port: 8080 }] }\n";

/// The code of this language, block by block.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let fences = section.split("```").skip(1).step_by(2);
    fences.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).map(str::to_owned).collect()
}

/// Stands in for a person in `kubectl edit`: adds this text under `data` as `shop.yaml`.
fn editor(test: &Test, text: &str) -> String {
    let (key, script) = (test.cluster.folder.join("shop.key"), test.cluster.folder.join("editor"));
    std::fs::write(&key, format!("  shop.yaml: {}\n", serde_json::to_string(text).unwrap())).unwrap();
    std::fs::write(&script, format!("sed -i '/^data:$/r {}' \"$1\"\n", key.display())).unwrap();
    format!("sh {}", script.display())
}

/// What the last of these lines prints.
fn run_all(test: &Test, lines: &str, editor: &str, node: &str) -> String {
    let lines = lines.lines().filter(|line| !IMAGE.iter().any(|image| line.starts_with(image)));
    lines.fold(String::new(), |_, line| run(test, &line.replace("NODE_ADDRESS", node), editor))
}

fn run(test: &Test, line: &str, editor: &str) -> String {
    let program = line.split(' ').next().unwrap_or_default();
    assert!(["kubectl", "helm", "curl"].contains(&program), "who does this? {line}");
    let programs = test.cluster.control_plane.program("");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.arg("-ec").arg(line).current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).env("PATH", path);
    shell.env("KUBECONFIG", &test.kubeconfig).env("KUBE_EDITOR", editor);
    for folder in ["HELM_DATA_HOME", "HELM_CONFIG_HOME", "HELM_CACHE_HOME", "KUBECACHEDIR"] {
        shell.env(folder, test.cluster.folder.join("home"));
    }
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
