//! Documents that are wrong in one place each: which error names it, or that it is taken as defined.
//! Nothing of a refused image is in the store, and the image without the fault can be pulled.

use kiln_testkit::{Compression, ImageBuilder, Registry, TestImage, Tree};
use kiln_types::Digest;
use kiln_types::error::ErrorCode;
use serde_json::{Value, json};

use crate::support::{Fixture, text};

/// A sound image with one layer.
fn sound() -> TestImage {
    ImageBuilder::new().layer(&Tree::root(), Compression::Gzip).build()
}

/// Changes a JSON document as text or as a value.
enum Edit {
    Value(fn(&mut Value)),
    Text(&'static str, &'static str),
    With(Box<dyn Fn(&mut Value)>),
}

impl Edit {
    fn apply(&self, document: &[u8]) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(document).unwrap();
        match self {
            Self::Value(edit) => edit(&mut value),
            Self::With(edit) => edit(&mut value),
            Self::Text(from, to) => {
                let text = value.to_string();
                assert!(text.contains(from), "{from} is not in {text}");
                return text.replacen(from, to, 1).into_bytes();
            }
        }
        value.to_string().into_bytes()
    }
}

/// The image with another manifest.
fn with_manifest(edit: &Edit) -> TestImage {
    let mut image = sound();
    image.manifest = edit.apply(&image.manifest);
    image.digest = Digest::of(&image.manifest);
    image
}

/// The image with another config, which its manifest describes truly.
fn with_config(edit: &Edit) -> TestImage {
    let mut image = sound();
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let old: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let config = edit.apply(&image.blobs.remove(&old).unwrap());
    manifest["config"]["digest"] = json!(Digest::of(&config));
    manifest["config"]["size"] = json!(config.len());
    image.blobs.insert(Digest::of(&config), config);
    image.manifest = manifest.to_string().into_bytes();
    image.digest = Digest::of(&image.manifest);
    image
}

/// Refused with a sentence that has `part`, nothing is left, and the sound image works.
async fn refused(image: &TestImage, part: &str) {
    let registry = Registry::start().await;
    registry.put("app", "v1", image);
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    let text = text(&error);
    assert_eq!(error.code(), ErrorCode::RegistryError, "{part}: {text}");
    assert!(text.contains(part), "{part}: {text}");
    assert!(text.contains(&format!("{}/app", registry.host())), "{text}");
    assert!(text.len() < 2000 && !text.chars().any(char::is_control), "{text}");
    fixture.assert_empty().await;
    let good = sound();
    registry.put("app", "v1", &good);
    let record = fixture.pull(&registry).await.unwrap();
    fixture.assert_has(&record, &good).await;
}

async fn taken(image: &TestImage) -> kiln_types::ImageConfig {
    let registry = Registry::start().await;
    registry.put("app", "v1", image);
    let fixture = Fixture::new().await;
    let record = fixture.pull(&registry).await.unwrap_or_else(|error| panic!("{}", text(&error)));
    assert_eq!(record.digest, image.digest);
    fixture.store.check(&record).await.unwrap();
    fixture.store.config(&record).await.unwrap()
}

#[tokio::test]
async fn manifests() {
    use Edit::{Text, Value};
    for (edit, part) in [
        (Value(|m| m["manifests"] = json!([])), "at once"),
        (Value(|m| m["Layers"] = m["layers"].clone()), "`Layers`"),
        (Value(|m| m["CONFIG"] = json!({})), "`CONFIG`"),
        (Text("\"layers\":[", "\"layers\":[],\"layers\":["), "`layers` is there twice"),
        (Text("\"size\":", "\"size\":1,\"size\":"), "`config.size` is there twice"),
        (Text("{", "{\"x\":{\"a\":1,\"a\":2},"), "`x.a` is there twice"),
        (Value(|m| *m = json!([2, m["config"], m["layers"]])), "not valid JSON of its kind"),
        (Value(|m| m["config"] = json!(["m", "d", 1])), "not valid JSON of its kind"),
        (Value(|m| m["mediaType"] = json!("text/html")), "`text/html`"),
        (Value(|m| m["mediaType"] = json!("application/vnd.oci.image.index.v1+json")), "disagree"),
        (Value(|m| m["schemaVersion"] = json!(1)), "schemaVersion"),
        (Value(|m| m["schemaVersion"] = json!(3)), "schemaVersion"),
        (Value(|m| m["schemaVersion"] = json!("2")), "schemaVersion"),
        (Value(|m| drop(m.as_object_mut().unwrap().remove("config"))), "config"),
        (Value(|m| drop(m.as_object_mut().unwrap().remove("layers"))), "layers"),
        (Value(|m| m["layers"] = json!(null)), "layers"),
        (Value(|m| m["layers"] = json!({})), "layers"),
        (Value(|m| m["layers"] = json!([])), "1 layers, and the manifest 0"),
        (
            Value(|m| {
                let layer = m["layers"][0].clone();
                m["layers"].as_array_mut().unwrap().push(layer);
            }),
            "1 layers, and the manifest 2",
        ),
        (Value(|m| m["layers"] = json!(vec![m["layers"][0].clone(); 5000])), "manifest 5000"),
        (Value(|m| m["layers"][0]["size"] = json!(-1)), "layers[0].size"),
        (Value(|m| m["layers"][0]["size"] = json!(1.5)), "layers[0].size"),
        (Value(|m| m["layers"][0]["size"] = json!("7")), "layers[0].size"),
        (Value(|m| m["layers"][0]["size"] = json!(u64::MAX)), "layers[0].size"),
        (Value(|m| m["layers"][0]["size"] = json!((1_u64 << 40) + 1)), "layers[0].size"),
        (Value(|m| m["layers"][0]["size"] = json!(1)), "larger than 1"),
        (Value(|m| m["layers"][0]["size"] = json!(0)), "larger than 0"),
        (Value(|m| m["layers"][0]["size"] = json!(1 << 30)), "ended after"),
        (Value(|m| m["layers"][0]["digest"] = json!("sha512:00")), "layers[0].digest"),
        (Value(|m| m["layers"][0]["digest"] = json!("md5:00")), "layers[0].digest"),
        (Value(|m| m["layers"][0]["digest"] = json!("sha256:../../etc/passwd")), "digest"),
        (Value(|m| m["layers"][0]["digest"] = json!("")), "layers[0].digest"),
        (
            Value(|m| {
                let upper = m["layers"][0]["digest"].as_str().unwrap()[7..].to_uppercase();
                m["layers"][0]["digest"] = json!(format!("sha256:{upper}"));
            }),
            "layers[0].digest",
        ),
        (Value(|m| m["layers"][0]["mediaType"] = json!("text/plain\u{1b}[2J")), "text/plain"),
        (Value(|m| m["layers"][0]["mediaType"] = json!("x".repeat(100_000))), "xxx"),
        (Value(|m| m["config"]["mediaType"] = json!("x".repeat(100_000))), "xxx"),
        (Value(|m| drop(m["layers"][0].as_object_mut().unwrap().remove("mediaType"))), "layer"),
        (Value(|m| m["config"]["size"] = json!(1)), "bytes"),
        (Value(|m| m["config"]["size"] = json!(9 << 20)), "config.size"),
        (Value(|m| m["config"]["size"] = json!(-1)), "config.size"),
        (Value(|m| m["config"]["digest"] = m["layers"][0]["digest"].clone()), "config"),
    ] {
        refused(&with_manifest(&edit), part).await;
    }
}

#[tokio::test]
async fn manifests_that_are_taken_as_they_are() {
    for edit in [
        // All optional, or of no meaning here.
        Edit::Value(|m| drop(m.as_object_mut().unwrap().remove("mediaType"))),
        Edit::Value(|m| m["annotations"] = json!({ "a": "\u{1b}[2J", "A": "b" })),
        Edit::Value(|m| m["subject"] = json!({ "any": ["thing"] })),
        Edit::Value(|m| m["layers"][0]["urls"] = json!(["http://127.0.0.1:1/elsewhere"])),
        Edit::Value(|m| m["layers"][0]["annotations"] = json!(null)),
        Edit::Value(|m| m["artifactType"] = json!("application/x")),
    ] {
        taken(&with_manifest(&edit)).await;
    }
}

#[tokio::test]
async fn indexes() {
    let index = |edit: &dyn Fn(&mut Value)| {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let mut index = kiln_testkit::index_of(&[("linux", arch, sound())]);
        let mut value: Value = serde_json::from_slice(&index.manifest).unwrap();
        edit(&mut value);
        index.manifest = value.to_string().into_bytes();
        index.digest = Digest::of(&index.manifest);
        index
    };
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 10] = [
        (|i| i["layers"] = json!([]), "at once"),
        (|i| i["Manifests"] = json!([]), "`Manifests`"),
        (|i| i["manifests"] = json!([]), "no platform at all"),
        (|i| i["manifests"][0]["size"] = json!(1), "bytes"),
        (|i| i["manifests"][0]["size"] = json!(-1), "manifests[0].size"),
        (|i| i["manifests"][0]["digest"] = json!(Digest::of("lie")), "404"),
        (|i| i["manifests"][0]["mediaType"] = json!("application/x"), "`application/x`"),
        (
            |i| {
                let media_type = "application/vnd.oci.image.index.v1+json";
                i["manifests"][0]["mediaType"] = json!(media_type);
            },
            "image.index",
        ),
        (|i| i["manifests"][0]["platform"]["os"] = json!("windows\u{1b}"), "windows"),
        (
            |i| {
                let entry = i["manifests"][0].clone();
                i["manifests"] = json!(vec![entry; 9000]);
                i["manifests"][0]["platform"] = json!([]);
            },
            "not valid JSON of its kind",
        ),
    ];
    for (edit, part) in cases {
        let image = index(&edit);
        let registry = Registry::start().await;
        registry.put("app", "v1", &image);
        let fixture = Fixture::new().await;
        let error = fixture.pull(&registry).await.unwrap_err();
        let text = text(&error);
        assert!(text.contains(part), "{part}: {text}");
        assert!(!text.chars().any(char::is_control) && text.len() < 3000, "{text}");
        fixture.assert_empty().await;
    }
    // An index that leads to an index, whatever its entry says.
    let mut outer = index(&|_| ());
    let inner = index(&|i| i["annotations"] = json!({ "inner": "1" }));
    let mut value: Value = serde_json::from_slice(&outer.manifest).unwrap();
    value["manifests"][0]["digest"] = json!(inner.digest);
    value["manifests"][0]["size"] = json!(inner.manifest.len());
    outer.manifest = value.to_string().into_bytes();
    outer.children = vec![inner];
    let registry = Registry::start().await;
    registry.put("app", "v1", &outer);
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    assert!(text(&error).contains("an index within an index"), "{}", text(&error));
    fixture.assert_empty().await;
    taken_from(&index(&|_| ())).await;
}

async fn taken_from(index: &TestImage) {
    let registry = Registry::start().await;
    registry.put("app", "v1", index);
    let fixture = Fixture::new().await;
    let record = fixture.pull(&registry).await.unwrap();
    fixture.assert_has(&record, &index.children[0]).await;
}

#[tokio::test]
async fn configs() {
    use Edit::{Text, Value, With};
    let execution = |value: serde_json::Value| With(Box::new(move |c| c["config"] = value.clone()));
    for (edit, part) in [
        (Value(|c| *c = json!([])), "not valid JSON of its kind"),
        (Value(|c| *c = json!("x")), "not valid JSON of its kind"),
        (Value(|c| *c = json!(null)), "not valid JSON of its kind"),
        (Value(|c| *c = json!({})), "rootfs"),
        (Text("{", "{\"os\":\"linux\",\"os\":\"linux\","), "os"),
        (Value(|c| c["Config"] = json!({ "User": "root" })), "`Config`"),
        (Value(|c| c["rootfs"]["type"] = json!("tar")), "rootfs.type"),
        (Value(|c| c["rootfs"] = json!(["layers", []])), "not valid JSON of its kind"),
        (Value(|c| c["rootfs"]["diff_ids"] = json!([])), "0 layers, and the manifest 1"),
        (Value(|c| c["rootfs"]["diff_ids"] = json!(null)), "diff_ids"),
        (Value(|c| c["rootfs"]["diff_ids"] = json!(["sha512:00"])), "diff_ids[0]"),
        (Value(|c| c["rootfs"]["diff_ids"] = json!(["../../x"])), "diff_ids[0]"),
        (Value(|c| c["rootfs"]["diff_ids"][0] = json!(Digest::of("lie"))), "unpacks to"),
        (Value(|c| c["os"] = json!("windows")), "windows"),
        (Value(|c| c["architecture"] = json!("\u{1b}[2J")), "not made for"),
        (execution(json!([])), "`config` is an array"),
        (execution(json!("x")), "config"),
        (execution(json!({ "WorkingDir": "../.." })), "config.WorkingDir"),
        (execution(json!({ "WorkingDir": "srv" })), "config.WorkingDir"),
        (execution(json!({ "WorkingDir": "/a\0b" })), "config.WorkingDir"),
        (execution(json!({ "WorkingDir": "/\u{1b}[2J" })), "config.WorkingDir"),
        (execution(json!({ "WorkingDir": format!("/{}", "x".repeat(5000)) })), "4096 bytes"),
        (execution(json!({ "WorkingDir": 7 })), "config.WorkingDir"),
        (execution(json!({ "User": "a\nb" })), "config.User"),
        (execution(json!({ "User": "x".repeat(5000) })), "4096 bytes"),
        (execution(json!({ "User": ["root"] })), "config.User"),
        (execution(json!({ "Env": ["NO_VALUE"] })), "config.Env"),
        (execution(json!({ "Env": ["=x"] })), "config.Env"),
        (execution(json!({ "Env": ["A=\0"] })), "config.Env"),
        (execution(json!({ "Env": [format!("A={}", "x".repeat(200_000))] })), "128 KiB"),
        (execution(json!({ "Env": vec!["A=1"; 5000] })), "4096 entries"),
        (execution(json!({ "Env": { "A": "1" } })), "config.Env"),
        (execution(json!({ "Env": "A=1" })), "config.Env"),
        (execution(json!({ "Cmd": "sh -c x" })), "config.Cmd"),
        (execution(json!({ "Cmd": [1] })), "config.Cmd"),
        (execution(json!({ "Cmd": ["a\0b"] })), "config.Cmd"),
        (execution(json!({ "Entrypoint": [["sh"]] })), "config.Entrypoint"),
        (execution(json!({ "Entrypoint": true })), "config.Entrypoint"),
        (execution(json!({ "Labels": ["a"] })), "config.Labels"),
        (execution(json!({ "Labels": { "a": 1 } })), "config.Labels"),
        (
            execution(
                json!({ "Labels": (0..5000).map(|n| (n.to_string(), json!(""))).collect::<serde_json::Map<_, _>>() }),
            ),
            "4096",
        ),
    ] {
        refused(&with_config(&edit), part).await;
    }
    // Eight MiB and a byte: refused by the descriptor already.
    let padded = With(Box::new(|c| c["author"] = json!("x".repeat(8 << 20))));
    refused(&with_config(&padded), "config.size").await;
}

#[tokio::test]
async fn configs_that_are_taken_as_defined() {
    let execution = json!({
        "Env": ["PATH=/bin", "PATH=/usr/bin", "LD_PRELOAD=/evil.so", "EMPTY="],
        "WorkingDir": "/../../srv", "User": "$(reboot):0",
        "Volumes": { "/data": {}, "/../../etc": {} },
        "Labels": { "\u{1b}]0;x\u{7}": "\u{1b}[2J", "a": "b" },
        "Entrypoint": [], "Cmd": ["--flag", "$(x)", "`y`"],
        "ExposedPorts": { "99999/tcp": 7 }, "StopSignal": "SIGKILL; rm", "OnBuild": ["RUN x"],
        "Healthcheck": { "Test": ["CMD", "x"] }, "Memory": -1,
    });
    let edit = Edit::With(Box::new(move |c| {
        c["config"] = execution.clone();
        c["history"] = json!([{ "empty_layer": true }, { "created": "never" }, {}, {}]);
        c["created"] = json!("not a date");
        c["container_config"] = json!({ "Cmd": "odd" });
    }));
    let config = taken(&with_config(&edit)).await;
    assert_eq!(config.env["PATH"], "/usr/bin", "the later one counts");
    assert_eq!(config.env["LD_PRELOAD"], "/evil.so");
    assert_eq!(config.workdir.as_deref(), Some("/../../srv"));
    assert_eq!(config.user.as_deref(), Some("$(reboot):0"));
    assert_eq!(config.cmd, ["--flag", "$(x)", "`y`"]);
    assert_eq!(config.labels.len(), 2);
    for edit in [
        Edit::Value(|c| c["config"] = json!(null)),
        Edit::Value(|c| drop(c.as_object_mut().unwrap().remove("config"))),
        Edit::Value(|c| c["config"] = json!({ "Cmd": null, "Env": [], "User": "" })),
        Edit::Value(|c| {
            c["rootfs"]["type"] = json!("");
            c["config"] = json!({});
        }),
    ] {
        assert_eq!(taken(&with_config(&edit)).await, kiln_types::ImageConfig::default());
    }
    // An image of no layers at all is one.
    let empty = ImageBuilder::new().config(json!({})).build();
    assert_eq!(taken(&empty).await, kiln_types::ImageConfig::default());
}

#[tokio::test]
async fn too_many_layers() {
    let tree = Tree::new();
    let build = |count: usize| {
        let mut builder = ImageBuilder::new();
        for _ in 0..count {
            builder = builder.layer(&tree, Compression::None);
        }
        builder.build()
    };
    refused(&build(257), "257 layers are more than 256").await;
}
