//! Sandboxes of images with more or fewer layers.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::peers::Network;
use crate::program::ms;
use crate::record::Recorder;
use crate::rig::{BASE, Rig};
use crate::turns::{Contestant, Cost, take};

/// The numbers of layers, and the rows.
const DEPTHS: [(usize, &str); 3] = [(1, "layers-1"), (10, "layers-10"), (50, "layers-50")];

/// Create and first exec over the API, as in the row `create-api`.
pub(super) fn layers(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    for (depth, row) in DEPTHS {
        let image = format!("bench-{row}");
        let mut contestants = Vec::new();
        for (name, kiln) in rig.flavours()? {
            // "AA==" is one byte; each of these steps makes a layer.
            let steps: Vec<_> = (1..depth)
                .map(|n| json!({"type": "file", "path": format!("/opt/{n}"), "content_base64": "AA=="}))
                .collect();
            kiln.build(&json!({"base": {"image": BASE}, "steps": steps}), &image, false)?;
            let made = kiln.image_layers(&image)?;
            ensure!(made == depth, "the image has {made} layers instead of {depth}");
            let image = image.clone();
            contestants.push(Contestant::new(name, Cost::Low, move || {
                let start = Instant::now();
                let sandbox = kiln.create(&image)?;
                kiln.exec(&sandbox, &["true"])?;
                let time = start.elapsed();
                kiln.remove(&sandbox)?;
                Ok(ms(time))
            }));
        }
        let podman = rig.podman()?;
        let context = rig.path(row);
        fs::create_dir_all(&context)?;
        fs::write(context.join("byte"), [0])?;
        let copies = (1..depth).map(|n| format!("COPY byte /opt/{n}"));
        let lines: Vec<String> =
            ["FROM localhost/base".to_owned()].into_iter().chain(copies).collect();
        fs::write(context.join("Containerfile"), lines.join("\n"))?;
        let words = [
            "podman",
            "build",
            "--quiet",
            "--layers",
            "-t",
            &image,
            &context.display().to_string(),
        ];
        podman.run(&words)?;
        let image = format!("localhost/{image}");
        contestants.push(Contestant::new("podman service, no network", Cost::High, move || {
            let start = Instant::now();
            let container = podman.create(&image, Network::None)?;
            podman.exec(&container, &["true"])?;
            let time = start.elapsed();
            podman.remove(&container)?;
            Ok(ms(time))
        }));
        take(recorder, row, contestants)?;
    }
    Ok(())
}
