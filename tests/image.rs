//! Is the image what the DaemonSet needs: one static binary that listens on port 80 without being root?
//!
//! Made of the binary of the tests by the script that `make image` runs, and run as a container runtime would run it, without one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Runs the program of an image in a network of its own, as the user $2 whose permitted capabilities are $3, with none that it could
/// gain and no_new_privs, as `allowPrivilegeEscalation: false` and `drop: [ALL], add: [NET_BIND_SERVICE]` do; asks it what it is.
const CONTAINER: &str = r#"
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
others=$(capsh --print | sed -n 's/^Bounding set =//p' | tr , '\n' | grep -v net_bind_service | paste -sd ,)
capsh --drop="$others" --chroot="$1" --keep=1 --gid="$2" --uid="$2" --caps="$3" --no-new-privs \
  --shell=/tidegate -- run --routes /routes.yaml --http 127.0.0.1:80 --https off 2> "$1/../log" >/dev/null &
gate=$!
for _ in $(seq 200); do
  "$1/tidegate" ready >/dev/null 2>&1 && break
  kill -0 $gate 2>/dev/null || break
  sleep 0.05
done
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs)' /proc/$gate/status
curl -s http://127.0.0.1:80/
kill $gate 2>/dev/null
wait $gate
"#;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/image.sh");

struct Image {
    folder: TempDir,
}

impl Image {
    /// The archive of the binary of the tests, taken apart.
    fn new() -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_tidegate"))).0
    }

    /// The same of any binary, and what was said of it.
    fn of(binary: &Path) -> (Self, String) {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        let said = text(run(Command::new(SCRIPT).arg(binary).arg(&archive)));
        run(Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(&archive));
        (Self { folder }, said)
    }

    /// Manifest and configuration.
    fn documents(&self) -> (Value, Value) {
        let manifest = self.document(&self.json("index.json")["manifests"][0]);
        let config = self.document(&manifest["config"]);
        (manifest, config)
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&fs::read(self.folder.path().join(path)).unwrap()).unwrap()
    }

    /// The file that a descriptor is of, its size and digest proven.
    fn blob(&self, descriptor: &Value) -> PathBuf {
        let sum = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let path = self.folder.path().join("blobs/sha256").join(sum);
        assert!(text(run(Command::new("sha256sum").arg(&path))).starts_with(sum));
        assert_eq!(fs::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
        path
    }

    fn document(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&fs::read(self.blob(descriptor)).unwrap()).unwrap()
    }

    /// The root of a container, with a route in it.
    fn unpack(&self, layer: &Path) -> PathBuf {
        let root = self.folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut tar = Command::new("tar");
        run(tar.args(["--xattrs", "--xattrs-include=*", "-xzf"]).arg(layer).arg("-C").arg(&root));
        fs::write(root.join("routes.yaml"), "/: { respond: { body: here } }\n").unwrap();
        // The folder of the test is its user's alone; the container's user has to get in.
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(self.folder.path()));
        root
    }
}

#[test]
fn the_image_is_one_static_binary_that_takes_port_80_without_root() {
    let image = Image::new();
    assert_eq!(image.json("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
    let (manifest, config) = image.documents();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], json!(["/tidegate"]));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let layer = image.blob(&manifest["layers"][0]);
    let names = text(run(Command::new("tar").arg("-tzf").arg(&layer)));
    assert_eq!(names, "tidegate\n", "nothing else");
    let root = image.unpack(&layer);
    let said = contained(&root, "65532", "cap_net_bind_service=p");
    for line in
        ["Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "NoNewPrivs:\t1"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains("here"), "{said}");
    lost_capability(&root);
}

/// Where a registry loses the capability, the user of the base cannot listen and is told why; root, as in the overlay for it, can.
fn lost_capability(root: &Path) {
    run(Command::new("setcap").arg("-r").arg(root.join("tidegate")));
    let refused = contained(root, "65532", "cap_net_bind_service=p");
    assert!(!refused.contains("here") && refused.contains("setcap cap_net_bind_service"), "{refused}");
    let said = contained(root, "0", "cap_net_bind_service=ep");
    assert!(said.contains("here") && said.contains("CapEff:\t0000000000000400"), "{said}");
}

#[test]
fn the_same_binary_makes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let small = small(&folder);
    let make = |archive: &str| run(Command::new(SCRIPT).arg(&small).arg(at(archive)));
    make("one.tar");
    // Later, and as another file.
    run(Command::new("touch").args(["-d", "2001-01-01"]).arg(&small));
    make("two.tar");
    assert!(fs::read(at("one.tar")).unwrap() == fs::read(at("two.tar")).unwrap());
}

#[test]
fn what_a_node_has_to_pull_is_said_and_has_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let small = small(&folder);
    let (image, said) = Image::of(&small);
    let (manifest, _) = image.documents();
    // As registries count it: what is transferred, compressed.
    let sizes = [&image.json("index.json")["manifests"][0], &manifest["config"], &manifest["layers"][0]];
    let pulled: u64 = sizes.iter().map(|descriptor| descriptor["size"].as_u64().unwrap()).sum();
    assert!(said.contains(&format!(" {pulled} bytes to pull, ")), "{pulled}: {said}");
    assert!(pulled > manifest["layers"][0]["size"].as_u64().unwrap());
    let archive = folder.path().join("image.tar");
    let limited = |limit: u64| Command::new(SCRIPT).arg(&small).arg(&archive).arg(limit.to_string()).output().unwrap();
    let refused = limited(pulled);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && !archive.exists() && why.contains(&format!("pull {pulled} bytes")), "{why}");
    assert!(limited(pulled + 1).status.success() && archive.exists());
    let script = fs::read_to_string(SCRIPT).unwrap();
    assert!(script.contains("echo 15000000"), "15 MB where it is built");
}

/// No container engine is at hand here. What can be held without one: that the Dockerfile has instructions that exist, and says the
/// same as the script whose image is tested above.
#[test]
fn the_dockerfile_says_what_the_image_is() {
    let folder = tempfile::tempdir().unwrap();
    let (image, _) = Image::of(&small(&folder));
    let (manifest, config) = image.documents();
    let config = &config["config"];
    let dockerfile = include_str!("../deploy/Dockerfile");
    let stages = stages(dockerfile);
    let [(build, steps), (base, last)] = stages.as_slice() else { panic!("two stages: {stages:?}") };
    let minimum = include_str!("../Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    assert_eq!(
        (build.as_str(), base.as_str()),
        (&*format!("rust:{}-bookworm AS build", minimum.trim_matches('"')), "scratch")
    );
    let one = |wanted: &str| {
        let found: Vec<&str> = last.iter().filter(|(name, _)| name == wanted).map(|(_, rest)| rest.as_str()).collect();
        assert_eq!(found.len(), 1, "{wanted}: {last:?}");
        found[0].to_owned()
    };
    assert_eq!(one("COPY"), "--from=build /tidegate /tidegate");
    assert_eq!(one("USER"), config["User"].as_str().unwrap());
    assert_eq!(serde_json::from_str::<Value>(&one("ENTRYPOINT")).unwrap(), config["Entrypoint"]);
    for label in one("LABEL").split(' ') {
        let (name, value) = label.split_once('=').unwrap();
        assert_eq!(config["Labels"][name], value, "{name}");
    }
    // What it does not say has the value that engines give it.
    assert!(last.iter().all(|(name, _)| ["COPY", "USER", "ENTRYPOINT", "LABEL"].contains(&name.as_str())), "{last:?}");
    assert_eq!((&config["WorkingDir"], &config["StopSignal"]), (&json!("/"), &json!("SIGTERM")));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    // The binary is made by the same commands.
    let (script, run) = (fs::read_to_string(SCRIPT).unwrap(), &steps.last().unwrap().1);
    for part in [
        "cargo build --release --locked --bin tidegate --target",
        "strip --strip-all -o",
        "setcap cap_net_bind_service=ep",
        "readelf -lW",
    ] {
        assert!(run.contains(part) && script.contains(part), "{part}");
    }
    let copied: Vec<&str> = include_str!("../.dockerignore").lines().collect();
    assert!(copied.contains(&"/target") && copied.contains(&"/.git"), "{copied:?}");
}

/// The stages of a Dockerfile: what each is from, and its instructions.
fn stages(dockerfile: &str) -> Vec<(String, Vec<(String, String)>)> {
    let joined = dockerfile.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut stages = Vec::<(String, Vec<(String, String)>)>::new();
    for line in lines {
        let (name, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no instruction: {line}"));
        match (name, stages.last_mut()) {
            ("FROM", _) => stages.push((rest.into(), Vec::new())),
            ("RUN" | "WORKDIR" | "COPY" | "LABEL" | "USER" | "ENTRYPOINT", Some((_, steps))) => {
                steps.push((name.into(), rest.into()));
            }
            _ => panic!("no instruction that is known here: {line}"),
        }
    }
    stages
}

/// A static binary that is soon made: how it is packed is the question.
fn small(folder: &TempDir) -> PathBuf {
    let at = |name: &str| folder.path().join(name);
    fs::write(at("main.c"), "int main(void) { return 0; }\n").unwrap();
    run(Command::new("cc").arg("-static").arg("-o").arg(at("small")).arg(at("main.c")));
    at("small")
}

#[test]
fn a_binary_that_needs_a_dynamic_linker_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("image.tar");
    let output = Command::new(SCRIPT).arg("/bin/ls").arg(&archive).output().unwrap();
    assert!(!output.status.success() && !archive.exists());
    assert!(String::from_utf8_lossy(&output.stderr).contains("crt-static"));
}

/// What [`CONTAINER`] says, and the log.
fn contained(root: &Path, user: &str, capabilities: &str) -> String {
    let mut command = Command::new("unshare");
    let output =
        command.args(["--net", "bash", "-c", CONTAINER, "container"]).arg(root).args([user, capabilities]).output();
    let log = fs::read_to_string(root.parent().unwrap().join("log")).unwrap_or_default();
    let output = output.unwrap();
    format!("{}{}{log}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(command: &mut Command) -> Output {
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}
