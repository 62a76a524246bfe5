use kiln_types::Digest;
use proptest::prelude::*;

use super::*;

fn parse(config: &str) -> Result<ImageConfig, DocumentError> {
    let document = format!(r#"{{"config":{config},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#);
    OciConfig::parse(document.as_bytes()).and_then(|config| image_config(&config))
}

#[test]
fn foreign_configs_are_mapped() {
    let config = parse(
        r#"{ "Env": ["PATH=/bin", "EMPTY=", "EQ=a=b", "PATH=/usr/bin"], "WorkingDir": "/srv", "User": "app:app",
             "Entrypoint": null, "Cmd": ["sh", "-c", "x"], "Labels": {"a": "b"}, "Volumes": {"/data": {}},
             "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT", "ArgsEscaped": true }"#,
    )
    .unwrap();
    let odd = br#"{"created":1,"history":[{"empty_layer":null}],"rootfs":{"diff_ids":[]}}"#;
    assert_eq!(image_config(&OciConfig::parse(odd).unwrap()).unwrap(), ImageConfig::default());
    let env: Vec<_> = config.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(env, [("EMPTY", ""), ("EQ", "a=b"), ("PATH", "/usr/bin")]);
    assert_eq!(config.workdir.as_deref(), Some("/srv"));
    assert_eq!(config.user.as_deref(), Some("app:app"));
    assert_eq!(config.cmd, ["sh", "-c", "x"]);
    assert_eq!(config.labels["a"], "b");
    for empty in ["null", "{}", r#"{"WorkingDir":"","User":"","Env":null}"#] {
        assert_eq!(parse(empty).unwrap(), ImageConfig::default(), "{empty}");
    }
}

#[test]
fn bad_configs_name_field_and_value() {
    let long = format!(r#"{{"Cmd":["{}"]}}"#, "x".repeat(STRING_LIMIT + 1));
    let many = format!(r#"{{"Env":[{}"A=1"]}}"#, r#""A=1","#.repeat(LIST_LIMIT));
    for (given, parts) in [
        (r#"{"Env":["NOVALUE"]}"#, ["config.Env", "NOVALUE"]),
        (r#"{"Env":["=x"]}"#, ["config.Env", "=x"]),
        (r#"{"Env":["A=\u0000"]}"#, ["config.Env", "NUL"]),
        (r#"{"WorkingDir":"srv"}"#, ["config.WorkingDir", "srv"]),
        (r#"{"User":"a\nb"}"#, ["config.User", "control"]),
        (long.as_str(), ["config.Cmd", "128 KiB"]),
        (many.as_str(), ["config.Env", "4096"]),
    ] {
        let error = parse(given).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    let large = vec![b' '; CONFIG_LIMIT as usize + 1];
    assert!(matches!(OciConfig::parse(&large), Err(DocumentError::TooLarge { .. })));
}

#[test]
fn history_always_accounts_for_every_layer() {
    let layers = [DiffId(Digest::of("a")), DiffId(Digest::of("b"))];
    for lines in [vec![], vec!["x".to_owned()], vec!["x".to_owned(); 2], vec!["x".to_owned(); 3]] {
        let bytes = config_bytes(&ImageConfig::default(), &layers, &lines);
        let config: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let history = config["history"].as_array().unwrap();
        let layers = history.iter().filter(|line| line.get("empty_layer").is_none());
        assert_eq!(layers.count(), 2, "{lines:?}");
        let kept = history.iter().filter(|line| line["created_by"].is_string()).count();
        assert_eq!(kept, lines.len());
    }
}

proptest! {
    #[test]
    fn written_configs_are_read_back(
        env in prop::collection::btree_map("[A-Z_]{1,8}", "[^\u{0}]{0,20}", 0..5),
        labels in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..5),
        cmd in prop::collection::vec("[^\u{0}]{0,20}", 0..4),
        workdir in prop::option::of("/[a-z ]{0,9}"),
    ) {
        let config = ImageConfig { env, labels, cmd, workdir, ..ImageConfig::default() };
        let bytes = config_bytes(&config, &[], &[]);
        prop_assert_eq!(&bytes, &config_bytes(&config, &[], &[]));
        prop_assert_eq!(image_config(&OciConfig::parse(&bytes).unwrap()).unwrap(), config);
    }
}
