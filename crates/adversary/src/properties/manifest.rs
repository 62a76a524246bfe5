//! Documents of OCI.

use kiln_images::oci::{
    DocumentError, Index, Manifest, OciConfig, config_bytes, image_config, manifest_bytes,
};

/// Reads the bytes as each of the three documents.
pub(super) fn check(bytes: &[u8]) {
    match Manifest::parse(bytes) {
        Ok(manifest) => {
            let text = serde_json::to_vec(&manifest).expect("it has a JSON form");
            let again = Manifest::parse(&text).expect("what was read can be written and read");
            assert_eq!(again, manifest);
            assert_eq!(serde_json::to_vec(&again).expect("it has a JSON form"), text);
            let layers: Vec<_> =
                manifest.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
            let ours = manifest_bytes((manifest.config.digest, manifest.config.size), &layers);
            let ours = Manifest::parse(&ours).expect("our own manifests are good");
            assert_eq!(ours.layers.len(), layers.len());
        }
        Err(error) => assert_refusal(&error),
    }
    match Index::parse(bytes) {
        Ok(index) => {
            let text = serde_json::to_vec(&index).expect("it has a JSON form");
            assert_eq!(Index::parse(&text).expect("what was read can be written and read"), index);
            for descriptor in &index.manifests {
                let platform = descriptor.platform.as_ref().map(ToString::to_string);
                let platform = platform.unwrap_or_default();
                assert!(!platform.chars().any(char::is_control), "{platform:?}");
            }
        }
        Err(error) => assert_refusal(&error),
    }
    match OciConfig::parse(bytes) {
        Ok(config) => check_config(&config),
        Err(error) => assert_refusal(&error),
    }
}

fn check_config(config: &OciConfig) {
    let taken = match image_config(config) {
        Ok(taken) => taken,
        Err(error) => return assert_refusal(&error),
    };
    for (name, value) in &taken.env {
        assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
    }
    assert!(taken.workdir.as_ref().is_none_or(|path| path.starts_with('/')));
    // What was taken is what an image made from it says.
    let ours = config_bytes(&taken, &config.rootfs.diff_ids, &[]);
    let ours_again = OciConfig::parse(&ours).expect("our own configs are good");
    assert_eq!(image_config(&ours_again).expect("our own configs are good"), taken);
    assert_eq!(ours_again.rootfs.diff_ids, config.rootfs.diff_ids);
    assert_eq!(config_bytes(&taken, &config.rootfs.diff_ids, &[]), ours, "not a function");
}

fn assert_refusal(error: &DocumentError) {
    super::assert_printable(error);
    assert!(error.to_string().len() < 2_000, "an endless message");
}
