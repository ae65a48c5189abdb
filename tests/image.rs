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

struct Image {
    folder: TempDir,
}

impl Image {
    fn make(binary: &Path, archive: &Path) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/image.sh");
        run(Command::new(script).arg(binary).arg(archive));
    }

    /// The archive taken apart.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        Self::make(Path::new(env!("CARGO_BIN_EXE_tidegate")), &archive);
        run(Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(&archive));
        Self { folder }
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
    let index = image.json("index.json");
    assert_eq!(image.json("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
    let manifest = image.document(&index["manifests"][0]);
    let config = image.document(&manifest["config"]);
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
    // A small one: how it is packed is the question.
    fs::write(at("main.c"), "int main(void) { return 0; }\n").unwrap();
    run(Command::new("cc").arg("-static").arg("-o").arg(at("small")).arg(at("main.c")));
    Image::make(&at("small"), &at("one.tar"));
    // Later, and as another file.
    run(Command::new("touch").args(["-d", "2001-01-01"]).arg(at("small")));
    Image::make(&at("small"), &at("two.tar"));
    assert!(fs::read(at("one.tar")).unwrap() == fs::read(at("two.tar")).unwrap());
}

#[test]
fn a_binary_that_needs_a_dynamic_linker_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/image.sh");
    let archive = folder.path().join("image.tar");
    let output = Command::new(script).arg("/bin/ls").arg(&archive).output().unwrap();
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
