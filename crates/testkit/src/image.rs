//! Images made from trees.

use std::collections::BTreeMap;

use kiln_types::{DiffId, Digest};
use serde_json::{Value, json};

use crate::{Tree, gzip, gzip_members, zstd};

/// How a layer is stored in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// One gzip member.
    #[default]
    Gzip,
    /// Several gzip members.
    GzipMembers(usize),
    /// zstd.
    Zstd,
}

/// A manifest (or an index) and all blobs that belong to it.
#[derive(Clone, Debug)]
pub struct TestImage {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Config and layers as a registry has them.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Digests of the layers as a registry has them, base first.
    pub layers: Vec<Digest>,
    /// Digests of the uncompressed layers, base first.
    pub diff_ids: Vec<DiffId>,
    /// Manifests that this one, an index, points to.
    pub children: Vec<TestImage>,
}

/// Builds one image.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    layers: Vec<(Vec<u8>, Compression)>,
    config: Value,
    os: String,
    architecture: String,
    diff_ids: Option<Vec<DiffId>>,
    docker: bool,
    layer_type: Option<String>,
    config_type: Option<String>,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self {
            layers: Vec::new(),
            config: json!({ "Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"] }),
            os: "linux".into(),
            architecture: architecture.into(),
            diff_ids: None,
            docker: false,
            layer_type: None,
            config_type: None,
        }
    }
}

impl ImageBuilder {
    /// An image for this host, without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer on top.
    #[must_use]
    pub fn layer(self, tree: &Tree, compression: Compression) -> Self {
        self.layer_bytes(tree.tar(), compression)
    }

    /// Adds a layer on top whose uncompressed bytes are given.
    #[must_use]
    pub fn layer_bytes(mut self, tar: Vec<u8>, compression: Compression) -> Self {
        self.layers.push((tar, compression));
        self
    }

    /// The `config` of the config.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Another platform than this host's.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str) -> Self {
        self.os = os.into();
        self.architecture = architecture.into();
        self
    }

    /// What the config says of its layers, when that is to be something else than the truth.
    #[must_use]
    pub fn diff_ids(mut self, diff_ids: Vec<DiffId>) -> Self {
        self.diff_ids = Some(diff_ids);
        self
    }

    /// Docker's media types instead of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// Another media type for every layer.
    #[must_use]
    pub fn layer_type(mut self, media_type: &str) -> Self {
        self.layer_type = Some(media_type.into());
        self
    }

    /// Another media type for the config.
    #[must_use]
    pub fn config_type(mut self, media_type: &str) -> Self {
        self.config_type = Some(media_type.into());
        self
    }

    /// The image.
    pub fn build(&self) -> TestImage {
        let mut blobs = BTreeMap::new();
        let mut descriptors = Vec::new();
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (tar, compression) in &self.layers {
            diff_ids.push(DiffId(Digest::of(tar)));
            let blob = match compression {
                Compression::None => tar.clone(),
                Compression::Gzip => gzip(tar),
                Compression::GzipMembers(members) => gzip_members(tar, *members),
                Compression::Zstd => zstd(tar),
            };
            let media_type = match &self.layer_type {
                Some(media_type) => media_type.clone(),
                None => layer_type(*compression, self.docker),
            };
            layers.push(Digest::of(&blob));
            descriptors.push(put(&mut blobs, &media_type, blob));
        }
        let stated = self.diff_ids.as_ref().unwrap_or(&diff_ids);
        let config = json!({
            "architecture": self.architecture,
            "os": self.os,
            "created": "2020-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": stated },
        });
        let default = if self.docker {
            "application/vnd.docker.container.image.v1+json"
        } else {
            "application/vnd.oci.image.config.v1+json"
        };
        let config_type = self.config_type.as_deref().unwrap_or(default);
        let config = put(&mut blobs, config_type, config.to_string().into_bytes());
        let media_type = if self.docker {
            "application/vnd.docker.distribution.manifest.v2+json"
        } else {
            "application/vnd.oci.image.manifest.v1+json"
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": descriptors,
        });
        // Pretty, so that a reader that writes it anew does not get the same bytes.
        let manifest = serde_json::to_vec_pretty(&manifest).expect("a JSON value has a text");
        TestImage {
            digest: Digest::of(&manifest),
            manifest,
            media_type: media_type.into(),
            blobs,
            layers,
            diff_ids,
            children: Vec::new(),
        }
    }
}

fn layer_type(compression: Compression, docker: bool) -> String {
    let base = if docker {
        "application/vnd.docker.image.rootfs.diff.tar"
    } else {
        "application/vnd.oci.image.layer.v1.tar"
    };
    let suffix = match compression {
        Compression::None => "",
        Compression::Gzip | Compression::GzipMembers(_) => "gzip",
        Compression::Zstd => "zstd",
    };
    let separator = match (suffix, docker) {
        ("", _) => "",
        (_, true) => ".",
        (_, false) => "+",
    };
    format!("{base}{separator}{suffix}")
}

fn put(blobs: &mut BTreeMap<Digest, Vec<u8>>, media_type: &str, blob: Vec<u8>) -> Value {
    let digest = Digest::of(&blob);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": blob.len() });
    blobs.insert(digest, blob);
    descriptor
}

/// An index of images, each for an `(os, architecture)`.
pub fn index_of(images: &[(&str, &str, TestImage)]) -> TestImage {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(os, architecture, image)| {
            json!({
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": image.manifest.len(),
                "platform": { "os": os, "architecture": architecture },
            })
        })
        .collect();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }).to_string();
    TestImage {
        digest: Digest::of(&manifest),
        manifest: manifest.into_bytes(),
        media_type: media_type.into(),
        blobs: BTreeMap::new(),
        layers: Vec::new(),
        diff_ids: Vec::new(),
        children: images.iter().map(|(_, _, image)| image.clone()).collect(),
    }
}
