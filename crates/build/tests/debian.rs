//! Builds on a real distribution, with packages of apt and of pip.

#![expect(clippy::print_stdout, reason = "a test says what it skips and how long things take")]

#[path = "build/lab.rs"]
#[expect(dead_code, reason = "shared with the other tests of builds")]
mod lab;

use std::path::Path;
use std::time::Instant;

use kiln_build::{BuildPlan, CatalogSource};
use kiln_types::api::{BuildRequest, BuildSource};
use kiln_types::event::BuildEventKind;
use lab::{Lab, infos, privileged};

/// The example template: its base comes from the Debian archive, its packages from apt and pip.
#[test]
fn s4_3_the_example_template() {
    if !privileged() {
        return;
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python-ml");
    let template = std::fs::read(example.join("template.json")).unwrap();
    let check = std::fs::read_to_string(example.join("check.py")).unwrap();
    let request = BuildRequest {
        source: BuildSource::Template(serde_json::from_slice(&template).unwrap()),
        name: None,
        pull: false,
        no_cache: false,
        literal: false,
    };
    let lab = Lab::with(|config| {
        config.catalog.insert(
            "debian-12".to_owned(),
            vec![
                // Nobody listens there: the second source has to step in.
                CatalogSource::Registry { reference: "127.0.0.1:9/debian:12".to_owned() },
                CatalogSource::DebianArchive { suite: "bookworm".to_owned(), mirrors: Vec::new() },
            ],
        );
    });
    lab.block_on(async {
        let started = Instant::now();
        let plan = BuildPlan::from_request(&request).unwrap();
        let (image, _, events) = lab.image(plan).await;
        println!("first build: {:?}", started.elapsed());
        for event in &events {
            if let BuildEventKind::StepFinished { step, duration_ms, layer_size } = event.kind {
                println!("step {step}: {duration_ms} ms, {layer_size} bytes");
            }
        }
        let infos = infos(&events);
        let said = |text: &str| infos.iter().any(|line| line.contains(text));
        assert!(said("not from registry image 127.0.0.1:9/debian:12"), "{infos:#?}");
        assert!(said("taken from Debian archive, suite bookworm"), "{infos:#?}");

        let script = format!("python3 - <<'END'\n{check}\nEND");
        let text = lab.run(&image, &script).await;
        assert_eq!(
            text,
            "fit: slope 3.000, offset 7.007\neigenvalues: 1.0 3.0\nmeans: fizz 304.01, rest 306.25\nrows: 200 sum: 61100.0\n"
        );
        // The layers hold what the steps made, and nothing of what the runtime lent them.
        let script = "set -e; pwd; echo $PYTHONDONTWRITEBYTECODE; ls /var/lib/apt/lists; env | grep CA_BUNDLE || echo none; python3 -m venv /tmp/v; git --version | cut -d ' ' -f 1; curl --version | head -n 1 | cut -d ' ' -f 1";
        let text = lab.run(&image, script).await;
        assert_eq!(text, "/workspace\n1\nnone\ngit\ncurl\n");

        let started = Instant::now();
        let plan = BuildPlan::from_request(&request).unwrap();
        let (again, record, _) = lab.image(plan).await;
        println!("cached build: {:?}", started.elapsed());
        assert_eq!((again.digest, record.steps_cached), (image.digest, 4));
        for layer in &image.layers {
            let tar = lab.store.blobs().path(&layer.0);
            let mut tar = tar::Archive::new(std::fs::File::open(tar).unwrap());
            for entry in tar.entries().unwrap() {
                let path = entry.unwrap().path().unwrap().into_owned();
                for lent in
                    ["etc/resolv.conf", "etc/hostname", "sbin/agent", "usr/sbin/agent", "run/kiln"]
                {
                    assert_ne!(path, Path::new(lent), "in layer {layer}");
                }
            }
        }
        lab.assert_clean();
    });
}
