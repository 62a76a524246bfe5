//! Every kind of damage to every file of a store is found, named and repaired where that is possible.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use kiln_images::oci::{MEDIA_CONFIG, MEDIA_MANIFEST, config_bytes};
use kiln_images::{Examined, Fault, NewImage, Repaired};
use kiln_metadata::{ImageRecord, LayerRecord, SandboxRecord, SnapshotRecord};
use kiln_testkit::{Tree, gzip};
use kiln_types::api::{FindingKind, ResourceLimits, SandboxStatus, SnapshotStatus, WayOut};
use kiln_types::{DiffId, Digest, ImageConfig, SandboxId, SnapshotId};

use crate::support::Fixture;

/// A store with an image of a registry, one that was built on it, and a snapshot of a sandbox of that.
struct Filled {
    fixture: Fixture,
    pulled: ImageRecord,
    built: ImageRecord,
    saved: ImageRecord,
    sandbox: SandboxId,
}

impl Filled {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let store = &fixture.store;
        let base = fixture.add(&Tree::root().file("usr/bin/tool", noise(1, 9000)), &[]).await;
        // Its index is that of a chain: it implies directories.
        let top =
            Tree::new().file("etc/app/conf", noise(2, 3000)).hardlink("etc/name", "etc/hostname");
        let top = fixture.add(&top, &[base.diff_id]).await;
        assert!(top.needs_parents);
        let layers = vec![base.diff_id, top.diff_id];
        let config = config_bytes(&ImageConfig::default(), &layers, &[]);
        let manifest = foreign_manifest(&config, &[&base, &top]);
        let name = "r.test/team/app:v1".parse().unwrap();
        let pulled =
            store.import_image(&manifest, &config, layers.clone(), Some(&name)).await.unwrap();
        store
            .remember_source(&pulled, &format!("r.test/team/app@{}", pulled.digest))
            .await
            .unwrap();

        let step = fixture.add(&described("srv/step", 5), &layers).await;
        let built = NewImage {
            layers: [layers.as_slice(), &[step.diff_id]].concat(),
            name: Some("built".parse().unwrap()),
            definition_key: Some(Digest::of("definition")),
            ..NewImage::default()
        };
        let built = store.commit_image(built).await.unwrap();
        let sandbox = SandboxRecord { image_digest: built.digest, ..sandbox() };
        store.metadata().insert_sandbox(&sandbox).await.unwrap();

        let change = fixture.add(&described("root/change", 7), &built.layers).await;
        let saved = NewImage {
            layers: [built.layers.as_slice(), &[change.diff_id]].concat(),
            ..NewImage::default()
        };
        let saved = store.commit_image(saved).await.unwrap();
        let snapshot = SnapshotRecord {
            id: SnapshotId::new(),
            name: "saved".to_owned(),
            status: SnapshotStatus::Ready,
            image: saved.digest,
            sandbox: sandbox.id,
            layer_size: change.size,
            skipped_sockets: 0,
            created_at: Timestamp::now(),
        };
        store.metadata().insert_snapshot(&snapshot).await.unwrap();
        Self { fixture, pulled, built, saved, sandbox: sandbox.id }
    }

    async fn fsck(&self) -> Examined {
        self.fixture.store.fsck(Arc::new(|_| {})).await.unwrap()
    }

    /// The one thing that is wrong.
    async fn finding(&self, what: &str) -> kiln_types::api::Finding {
        let mut findings = self.fsck().await.findings;
        assert_eq!(findings.len(), 1, "{what}: {findings:#?}");
        findings.remove(0)
    }

    async fn rows(&self, layers: &[DiffId]) -> Vec<LayerRecord> {
        self.fixture.store.metadata().get_layers(layers).await.unwrap()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.fixture.store.blobs().path(digest)
    }

    fn images(&self) -> [&ImageRecord; 3] {
        [&self.pulled, &self.built, &self.saved]
    }

    /// Every file that there must be, and which it is.
    async fn objects(&self) -> BTreeMap<PathBuf, Object> {
        let mut objects = BTreeMap::new();
        for image in self.images() {
            for (digest, size) in
                [(image.digest, image.manifest_size), (image.config_digest, image.config_size)]
            {
                objects.insert(self.blob(&digest), Object::Blob(digest, size));
            }
            let rows = self.rows(&image.layers).await;
            for count in 1..=rows.len() {
                let row = rows[count - 1];
                objects.insert(self.blob(&row.diff_id.0), Object::Blob(row.diff_id.0, row.size));
                let chain = rows[..count].to_vec();
                let path = self.fixture.store.examiner().index_path(&chain);
                objects.insert(path, Object::Index(chain));
            }
        }
        objects
    }

    /// Examines one object alone.
    fn examine(&self, object: &Object) -> Result<(), Fault> {
        let mut examiner = self.fixture.store.examiner();
        match object {
            Object::Blob(digest, size) => examiner.blob(digest, *size, &mut |_| {}),
            Object::Index(chain) => examiner.index(chain),
        }
    }

    /// The images, snapshots and sandboxes that need an object.
    fn dependents(&self, object: &Object) -> (Vec<String>, Vec<String>, Vec<String>) {
        let needs = |image: &&ImageRecord| match object {
            Object::Blob(digest, _) => {
                [image.digest, image.config_digest].contains(digest)
                    || image.layers.contains(&DiffId(*digest))
            }
            Object::Index(chain) => {
                let ids: Vec<_> = chain.iter().map(|row| row.diff_id).collect();
                image.layers.starts_with(&ids)
            }
        };
        let images: Vec<&ImageRecord> = self.images().into_iter().filter(needs).collect();
        let has = |image: &ImageRecord| images.iter().any(|found| found.digest == image.digest);
        let mut digests: Vec<_> = images.iter().map(|image| image.digest.to_string()).collect();
        digests.sort();
        let saved = if has(&self.saved) { vec!["saved".to_owned()] } else { Vec::new() };
        let sandboxes = if has(&self.built) { vec![self.sandbox.to_string()] } else { Vec::new() };
        (digests, saved, sandboxes)
    }
}

#[derive(Clone, Debug)]
enum Object {
    Blob(Digest, u64),
    Index(Vec<LayerRecord>),
}

/// Describes its root, so that its index does not depend on what is below.
fn described(path: &str, seed: u64) -> Tree {
    let (dir, _) = path.split_once('/').unwrap();
    Tree::new().dir(".").dir(dir).file(path, noise(seed, 5000))
}

/// A manifest as other tools write one: with compressed layers.
fn foreign_manifest(config: &[u8], layers: &[&LayerRecord]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(layer.diff_id.to_string()),
                "size": 17,
            })
        })
        .collect();
    serde_json::to_vec_pretty(&serde_json::json!({
        "schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "layers": layers,
        "config": { "mediaType": MEDIA_CONFIG, "digest": Digest::of(config), "size": config.len() },
    }))
    .unwrap()
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..size).map(|_| random.next() as u8).collect()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn sandbox() -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::new(),
        name: None,
        status: SandboxStatus::Stopped,
        image: "built".into(),
        image_digest: Digest::of("none"),
        env: BTreeMap::new(),
        limits: ResourceLimits::default(),
        slot: None,
        address: None,
        reason: None,
        driver: "native".into(),
        created_at: Timestamp::now(),
    }
}

fn write(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
}

fn flip(path: &Path, at: u64, bit: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ bit], at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the numbers of a full run are for the documentation")]
async fn a_flip_in_every_block_and_a_cut_at_every_block_is_found() {
    let filled = Filled::new().await;
    assert_eq!(filled.fsck().await.findings, []);
    let mut random = Random(42);
    let (mut flips, mut cuts) = (0, 0);
    for (path, object) in filled.objects().await {
        let whole = fs::read(&path).unwrap();
        assert_eq!(filled.examine(&object), Ok(()), "{}", path.display());
        for block in (0..whole.len()).step_by(512) {
            let at = block + random.next() as usize % 512.min(whole.len() - block);
            let bit = 1 << (random.next() % 8);
            flip(&path, at as u64, bit);
            let fault = filled.examine(&object);
            assert!(fault.is_err(), "bit {bit} of byte {at} of {}", path.display());
            flip(&path, at as u64, bit);
            flips += 1;
        }
        for size in (0..whole.len()).step_by(512) {
            write(&path, &whole[..size]);
            assert!(filled.examine(&object).is_err(), "{} cut at {size}", path.display());
            cuts += 1;
        }
        for more in [&b"\0"[..], &[0; 512], b"x"] {
            write(&path, &[whole.as_slice(), more].concat());
            assert!(filled.examine(&object).is_err(), "{} extended", path.display());
        }
        fs::remove_file(&path).unwrap();
        let fault = filled.examine(&object).unwrap_err();
        let missing = [FindingKind::BlobMissing, FindingKind::IndexMissing];
        assert!(missing.contains(&fault.kind), "{fault:?}");
        write(&path, &whole);
    }
    println!("store: {flips} flips, {cuts} cuts, all found");
    assert_eq!(filled.fsck().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_said_with_what_depends_on_it() {
    let filled = Filled::new().await;
    let objects = filled.objects().await;
    for (path, object) in &objects {
        let whole = fs::read(path).unwrap();
        let (images, snapshots, sandboxes) = filled.dependents(object);
        let shown = path.display().to_string();
        let damages: [(&str, &dyn Fn()); 4] = [
            ("flip", &|| flip(path, whole.len() as u64 / 2, 4)),
            ("cut", &|| write(path, &whole[..whole.len() / 2])),
            ("longer", &|| write(path, &[whole.as_slice(), b"more"].concat())),
            ("gone", &|| fs::remove_file(path).unwrap()),
        ];
        for (what, damage) in damages {
            damage();
            let finding = filled.finding(&format!("{what}: {shown}")).await;
            assert!(shown.ends_with(finding.path.as_deref().unwrap()), "{finding:?}");
            let affects = &finding.affects;
            assert_eq!(affects.images, images, "{what}: {shown}");
            assert_eq!(affects.snapshots, snapshots, "{what}: {shown}");
            assert_eq!(affects.sandboxes, sandboxes, "{what}: {shown}");
            let kind = match (object, what) {
                (Object::Blob(..), "gone") => FindingKind::BlobMissing,
                (Object::Blob(..), _) => FindingKind::BlobDamaged,
                (Object::Index(_), "gone") => FindingKind::IndexMissing,
                (Object::Index(_), _) => FindingKind::IndexDamaged,
            };
            assert_eq!(finding.kind, kind, "{what}: {shown}");
            write(path, &whole);
        }
    }
    assert_eq!(filled.fsck().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_extra_and_foreign_files_are_found() {
    let filled = Filled::new().await;
    let (one, two) =
        (filled.blob(&filled.built.layers[0].0), filled.blob(&filled.saved.config_digest));
    let swap = |one: &Path, two: &Path| {
        let aside = one.with_extension("aside");
        fs::rename(one, &aside).unwrap();
        fs::rename(two, one).unwrap();
        fs::rename(&aside, two).unwrap();
    };
    swap(&one, &two);
    let found = filled.fsck().await.findings;
    let kinds: Vec<_> = found.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::BlobDamaged, FindingKind::BlobDamaged], "{found:#?}");
    swap(&one, &two);

    let dir = filled.fixture.dir.path();
    let stray = Digest::of("stray");
    let expected = [
        (
            format!("blobs/sha256/{}/{}", &stray.hex()[..2], stray.hex()),
            FindingKind::FileUnreferenced,
        ),
        (format!("indexes/{}.erofs", stray.hex()), FindingKind::FileUnreferenced),
        (format!("indexes/chain-{}.erofs", stray.hex()), FindingKind::FileUnreferenced),
        ("blobs/sha256/00/README".to_owned(), FindingKind::FileForeign),
        ("blobs/notes.txt".to_owned(), FindingKind::FileForeign),
        ("indexes/old.erofs.bak".to_owned(), FindingKind::FileForeign),
        ("blobs/tmp/99999.0".to_owned(), FindingKind::FileTemporary),
    ];
    fs::create_dir(dir.join("blobs/tmp/99999.0")).unwrap();
    for (path, kind) in &expected {
        let file =
            if *kind == FindingKind::FileTemporary { format!("{path}/0") } else { path.clone() };
        fs::write(dir.join(file), "stray").unwrap();
    }
    let findings = filled.fsck().await.findings;
    let mut found: Vec<_> =
        findings.iter().map(|finding| (finding.path.clone().unwrap(), finding.kind)).collect();
    let mut expected = expected.to_vec();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for finding in &findings {
        let Repaired::Done(repair) = filled.fixture.store.repair(finding).await.unwrap() else {
            panic!("{finding:?}")
        };
        assert!(repair.repaired, "{finding:?}: {repair:?}");
        let foreign = finding.kind == FindingKind::FileForeign;
        assert_eq!(repair.bytes_removed > 0, !foreign, "{finding:?}: {repair:?}");
        assert!(!dir.join(finding.path.as_ref().unwrap()).exists(), "{finding:?}");
    }
    // What is not Kiln's is not removed, only moved aside.
    assert_eq!(fs::read_dir(dir.join("quarantine")).unwrap().count(), 3);
    assert_eq!(filled.fsck().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_made_again_is_and_the_rest_is_put_out_of_use() {
    let filled = Filled::new().await;
    let store = &filled.fixture.store;
    for (path, object) in filled.objects().await {
        let whole = fs::read(&path).unwrap();
        flip(&path, whole.len() as u64 / 3, 1);
        let finding = filled.finding(&path.display().to_string()).await;
        let repaired = store.repair(&finding).await.unwrap();
        match (finding.way_out, repaired) {
            (WayOut::Repair, Repaired::Done(repair)) => {
                assert!(repair.repaired, "{finding:?}: {repair:?}");
                assert_eq!(fs::read(&path).unwrap(), whole, "{}", path.display());
            }
            (WayOut::PullAgain, Repaired::Fetch { reference, aside, digest }) => {
                assert!(reference.starts_with("r.test/team/app@sha256:"), "{reference}");
                let settle = async |problem: Option<&str>, aside| {
                    let problem = problem.map(str::to_owned);
                    store.settle_repair(&finding, digest, &reference, aside, problem).await.unwrap()
                };
                let failed = settle(Some("no such host"), aside.clone()).await;
                assert!(!failed.repaired && failed.detail.contains("no such host"), "{failed:?}");
                // As after a pull.
                write(&path, &whole);
                let settled = settle(None, aside.clone()).await;
                assert!(settled.repaired && settled.bytes_removed > 0, "{settled:?}");
                assert!(!aside.unwrap().exists());
            }
            (WayOut::BuildAgain | WayOut::Lost, Repaired::Done(repair)) => {
                assert!(!repair.repaired && repair.detail.contains("quarantine/"), "{repair:?}");
                assert!(!path.exists(), "nothing may run with it");
                let Object::Blob(digest, _) = object else { panic!("{object:?}") };
                for image in filled.images() {
                    let needs = image.layers.contains(&DiffId(digest))
                        || [image.digest, image.config_digest].contains(&digest);
                    let checked = store.check(image).await;
                    assert_eq!(checked.is_err(), needs, "{checked:?}");
                    if let Err(error) = checked {
                        assert_eq!(error.code(), kiln_types::ErrorCode::StoreCorrupt);
                    }
                }
                write(&path, &whole);
            }
            other => panic!("{other:?}"),
        }
    }
    fs::remove_dir_all(filled.fixture.dir.path().join("quarantine")).unwrap();
    assert_eq!(filled.fsck().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_the_right_size_with_wrong_bytes_is_replaced_by_the_next_one() {
    let filled = Filled::new().await;
    let store = &filled.fixture.store;
    let layer = *filled.built.layers.last().unwrap();
    let path = filled.blob(&layer.0);
    let whole = fs::read(&path).unwrap();
    flip(&path, 600, 1);
    let finding = filled.finding("flipped").await;
    assert_eq!(finding.way_out, WayOut::BuildAgain);
    store.repair(&finding).await.unwrap();
    assert!(!store.has_layer(&layer).await.unwrap());
    let again = Box::new(Cursor::new(gzip(&whole)));
    store.import_layer(again, Some(layer), &filled.pulled.layers).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole);
    store.check(&filled.built).await.unwrap();
    assert_eq!(filled.fsck().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_their_documents_are_found_and_rewritten() {
    let filled = Filled::new().await;
    let store = &filled.fixture.store;
    let mut wrong = filled.built.clone();
    wrong.layers.swap(0, 2);
    store.metadata().put_image(&wrong, None).await.unwrap();
    let finding = filled
        .fsck()
        .await
        .findings
        .into_iter()
        .find(|finding| finding.kind == FindingKind::ImageInconsistent)
        .unwrap();
    assert_eq!(finding.affects.names, ["built:latest"]);
    let Repaired::Done(repair) = store.repair(&finding).await.unwrap() else { panic!() };
    assert!(repair.repaired, "{repair:?}");
    assert_eq!(store.resolve("built").await.unwrap(), filled.built);
    assert_eq!(filled.fsck().await.findings, []);
}
