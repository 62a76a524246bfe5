//! Manifests and indexes (OCI image specification 1.1; Docker image manifest V2, schema 2).

use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use super::{
    CONFIG_LIMIT, DocumentError, LAYER_LIMIT, MANIFEST_LIMIT, MEDIA_CONFIG, MEDIA_LAYER,
    MEDIA_MANIFEST, Platform,
};

/// The fields of both documents.
const FIELDS: &[&str] =
    &["schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests"];

/// What a manifest or index says of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// The manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of the manifest itself; optional in the specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Kind of artifact, for what is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let manifest: Self = DocumentError::read(bytes, MANIFEST_LIMIT, FIELDS)?;
        check_schema(manifest.schema_version)?;
        if manifest.config.size > CONFIG_LIMIT {
            return Err(DocumentError::field(
                "config.size",
                &manifest.config.size.to_string(),
                "configs above 8 MiB are refused",
            ));
        }
        for (number, layer) in manifest.layers.iter().enumerate() {
            if layer.size > LAYER_LIMIT {
                let (field, size) = (format!("layers[{number}].size"), layer.size.to_string());
                return Err(DocumentError::field(field, &size, "layers above 1 TiB are refused"));
            }
        }
        Ok(manifest)
    }
}

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of the index itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// Reads an index.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let index: Self = DocumentError::read(bytes, MANIFEST_LIMIT, FIELDS)?;
        check_schema(index.schema_version)?;
        Ok(index)
    }
}

fn check_schema(version: u32) -> Result<(), DocumentError> {
    if version == 2 {
        return Ok(());
    }
    let problem = "only schema version 2 is supported; push the image again with a current tool";
    Err(DocumentError::field("schemaVersion", &version.to_string(), problem))
}

/// The manifest of an image whose layers are uncompressed tars: digest and size, base first.
pub fn manifest_bytes(config: (Digest, u64), layers: &[(Digest, u64)]) -> Vec<u8> {
    let descriptor = |media_type: &str, (digest, size): (Digest, u64)| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MEDIA_MANIFEST.to_owned()),
        artifact_type: None,
        config: descriptor(MEDIA_CONFIG, config),
        layers: layers.iter().map(|layer| descriptor(MEDIA_LAYER, *layer)).collect(),
    };
    serde_json::to_vec(&manifest).expect("a manifest has only strings and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_manifests_are_read_back() {
        let (config, layer) = (Digest::of("config"), Digest::of("layer"));
        let bytes = manifest_bytes((config, 6), &[(layer, 5)]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.starts_with(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"#
        ));
        let manifest = Manifest::parse(&bytes).unwrap();
        assert_eq!((manifest.config.digest, manifest.config.size), (config, 6));
        assert_eq!((manifest.layers[0].digest, manifest.layers[0].size), (layer, 5));
    }

    #[test]
    fn bad_manifests_name_the_field() {
        let digest = Digest::of("x");
        let part = format!(r#"{{"mediaType":"m","digest":"{digest}","size":1}}"#);
        let large = format!(r#"{{"mediaType":"m","digest":"{digest}","size":99999999}}"#);
        for (given, expected) in [
            (format!(r#"{{"schemaVersion":1,"config":{part},"layers":[]}}"#), "schemaVersion"),
            (format!(r#"{{"schemaVersion":2,"config":{large},"layers":[]}}"#), "config.size"),
            (r#"{"schemaVersion":2,"layers":[]}"#.to_owned(), "JSON"),
            (
                format!(r#"{{"schemaVersion":2,"config":{part},"layers":[],"Layers":[]}}"#),
                "`Layers`",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{part},"layers":[{}]}}"#,
                    part.replace(":1}", ":18446744073709551615}")
                ),
                "layers[0].size",
            ),
        ] {
            let error = Manifest::parse(given.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{given}: {error}");
        }
    }
}
