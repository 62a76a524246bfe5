//! The registry that images are pulled from.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kiln_testkit::{Action, Compression, Fault, ImageBuilder, Registry, Tree};

use crate::fault::Misdeed;
use crate::rng::Rng;

/// It, and the layer that all of its images share.
#[derive(Debug)]
pub(crate) struct Source {
    registry: Registry,
    base: Vec<u8>,
}

impl Source {
    pub(crate) async fn start(rootfs: &Path) -> Result<Self> {
        Ok(Self { registry: Registry::start().await, base: fs::read(rootfs)? })
    }

    pub(crate) fn host(&self) -> String {
        self.registry.host()
    }

    /// Offers an image of three layers whose `/marker` says `name`; gives its reference.
    pub(crate) fn offer(&self, name: &str, rng: &mut Rng) -> String {
        let noise =
            Tree::noise(rng.next(), 1 + rng.below(3) as usize, 30_000 + rng.below(90_000) as usize);
        let image = ImageBuilder::new()
            .layer_bytes(self.base.clone(), Compression::Gzip)
            .layer(&noise, Compression::Zstd)
            .layer(&Tree::new().file("marker", format!("{name}\n")), Compression::Gzip)
            .config(serde_json::json!({ "Env": ["PATH=/bin"], "WorkingDir": "/" }))
            .build();
        self.registry.put(name, "v1", &image);
        format!("{}/{name}:v1", self.host())
    }

    /// Misbehaves at the next `times` requests for the image `name`.
    pub(crate) fn misbehave(&self, name: &str, misdeed: Misdeed, times: usize, rng: &mut Rng) {
        let action = match misdeed {
            Misdeed::Reset => Action::DropAfter(rng.below(60_000) as usize),
            Misdeed::Truncate => Action::Truncate(rng.below(60_000) as usize),
            Misdeed::Corrupt => Action::Corrupt,
            Misdeed::Lie => Action::Replace(vec![b'x'; 1 + rng.below(5_000) as usize]),
            Misdeed::TooMany => {
                Action::Status { status: 429, retry_after: rng.chance(1, 2).then(|| "1".into()) }
            }
            Misdeed::Error => {
                let status = *rng.pick(&[500, 502, 503, 504]);
                Action::Status { status, retry_after: None }
            }
            // Longer than the daemon waits: a body that comes slowly but comes is no fault.
            Misdeed::Stall => Action::Drip(Duration::from_millis(350 + rng.below(400))),
            Misdeed::Endless => Action::Replace(vec![0; 24 << 20]),
        };
        let part = *rng.pick(&["manifests/", "blobs/", ""]);
        self.registry.fault(Fault::times(times, format!("/{name}/{part}"), action));
    }
}
