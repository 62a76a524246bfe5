//! Images from a registry: Debian's own registry server, with a password, on loopback (S2.1).

use std::fs;

use kiln_testkit::{Compression, DockerRegistry, ImageBuilder, TestImage, Tree, push, skip};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::daemon::Daemon;
use crate::fixture::busybox;

/// Two layers: a busybox root, and a change on it with a whiteout.
fn image() -> TestImage {
    let change = Tree::new()
        .dir("etc")
        .whiteout("etc/group")
        .dir("srv")
        .file("srv/greeting", "from the registry\n")
        .tar();
    ImageBuilder::new()
        .layer_bytes(fs::read(busybox()).unwrap(), Compression::Gzip)
        .layer_bytes(change, Compression::Gzip)
        .config(json!({
            "Env": ["PATH=/bin", "GREETING=hello"],
            "WorkingDir": "/srv",
            "User": "ada",
            "Cmd": ["cat", "greeting"],
        }))
        .build()
}

fn config(host: &str) -> String {
    format!(
        "[registries]\nplain_http = [{host:?}]\nattempts = 2\n\
         [registries.credentials.{host:?}]\nusername = \"alice\"\npassword = \"secret\"\n"
    )
}

/// A registry that wants the credentials of [`config`]; `None`, and said so, where it cannot be run.
fn private_registry(runtime: &Runtime) -> Option<DockerRegistry> {
    let registry = runtime.block_on(DockerRegistry::start_private("alice", "secret")).unwrap();
    if registry.is_none() {
        skip("docker-registry or htpasswd is not installed");
    }
    registry
}

#[test]
fn s2_1_an_image_of_a_private_registry_boots() {
    let runtime = Runtime::new().unwrap();
    let Some(registry) = private_registry(&runtime) else { return };
    let host = registry.host();
    let image = image();
    let credentials = Some(("alice", "secret"));
    runtime.block_on(push(&host, "team/app", "v1", &image, credentials)).unwrap();

    let kiln = Daemon::start_with(&config(&host));
    let by_tag = format!("{host}/team/app:v1");
    assert_eq!(kiln.ok(&["pull", &by_tag]), by_tag);
    let by_digest = format!("{host}/team/app@{}", image.digest);
    kiln.ok(&["pull", &by_digest, "--name", "pinned"]);
    let images = kiln.json(&["images"]);
    assert_eq!(images.as_array().unwrap().len(), 1, "one digest is one image: {images}");
    assert_eq!(images[0]["digest"], image.digest.to_string());

    // What the image's config says is what its sandboxes do.
    assert_eq!(kiln.ok(&["run", &by_tag]), "from the registry");
    let script = "id -un; pwd; echo $GREETING; test -e /etc/group || echo no groups";
    let output = kiln.ok(&["run", "pinned", "--", "sh", "-c", script]);
    assert_eq!(output, "ada\n/srv\nhello\nno groups");

    // As a base, too; an explicit reference never becomes anything else.
    kiln.build(
        "on-top",
        &json!({
            "name": "on-top",
            "base_image": by_tag,
            "setup_commands": ["cat /srv/greeting > /tmp/copy"],
        }),
    );
    assert_eq!(kiln.ok(&["run", "on-top", "--", "cat", "/tmp/copy"]), "from the registry");

    let unknown = kiln.run(&["pull", &format!("{host}/team/app:v2")]);
    assert_eq!(unknown.code, Some(1), "{unknown}");
    assert!(unknown.stderr.contains("v2"), "{unknown}");
}

#[test]
fn a_registry_that_wants_a_password_says_so() {
    let runtime = Runtime::new().unwrap();
    let Some(registry) = private_registry(&runtime) else { return };
    let host = registry.host();
    let kiln = Daemon::start_with(&config(&host).replace("\"secret\"", "\"wrong\""));
    let refused = kiln.run(&["pull", &format!("{host}/team/app:v1")]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains(&host) && refused.stderr.contains("401"), "{refused}");
    assert_eq!(kiln.json(&["images"]), json!([]));
}
