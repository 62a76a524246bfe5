//! Garbage collection beside everything else: many tasks import, commit, hold, refer to, name and remove
//! at random while others collect. What a task knows to be referred to is always whole; when all is
//! quiet, exactly what is referred to is there.
//!
//! `KILN_TEST_MODEL=full` does 10^5 operations and more; without it, some thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use kiln_images::{GcScope, ImageStore, ImagesError, NewImage};
use kiln_metadata::{ImageRecord, MetadataError, SandboxRecord, StepRecord};
use kiln_testkit::Tree;
use kiln_types::api::{ResourceLimits, SandboxStatus};
use kiln_types::error::ErrorCode;
use kiln_types::{ChainId, DiffId, Digest, ImageName, SandboxId, StepKey};

use crate::support::open;

const WORKERS: u64 = 8;
/// How many different layers there are besides the bases.
const LAYERS: usize = 24;

/// The layers that all tasks work with: the tar of each.
struct Pool {
    bases: Vec<(DiffId, Vec<u8>)>,
    tops: Vec<(DiffId, Vec<u8>)>,
}

impl Pool {
    fn new() -> Self {
        let tar = |tree: Tree| {
            let tar = tree.tar();
            (DiffId(Digest::of(&tar)), tar)
        };
        let base = |number: usize| tar(Tree::root().file(format!("base{number}"), "b"));
        // Every second one implies its directories, so that it has an index for each chain.
        let top = |number: usize| {
            let tree = if number.is_multiple_of(2) {
                Tree::new()
            } else {
                Tree::new().dir(".").dir("etc")
            };
            tar(tree.file(format!("etc/top{number}"), format!("t{number}")))
        };
        Self { bases: (0..3).map(base).collect(), tops: (0..LAYERS).map(top).collect() }
    }
}

/// What tasks know of each other: names that were given, and by whom they are used.
#[derive(Default)]
struct Shared {
    names: Mutex<BTreeSet<String>>,
    operations: AtomicU64,
    collected: AtomicU64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

/// One task: what it refers to is in its two maps.
struct Worker {
    number: u64,
    store: Arc<ImageStore>,
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    random: Random,
    named: BTreeMap<String, ImageRecord>,
    sandboxes: HashMap<SandboxId, ImageRecord>,
}

impl Worker {
    async fn run(mut self, operations: u64) -> Self {
        let mut done = 0;
        while done < operations {
            let count = match self.random.below(20) {
                0..=4 => self.import().await,
                5..=8 => self.check().await,
                9..=11 => self.sandbox().await,
                12 => self.remove_sandbox().await,
                13..=14 => self.remove_name().await,
                15 => self.step().await,
                16 => self.rename().await,
                17 => self.leave_half().await,
                _ => self.collect().await,
            };
            done += count;
            self.shared.operations.fetch_add(count, Ordering::Relaxed);
        }
        self
    }

    fn layers(&mut self) -> Vec<(DiffId, Vec<u8>)> {
        let pool = Arc::clone(&self.pool);
        let mut layers = vec![pool.bases[self.random.below(pool.bases.len())].clone()];
        for _ in 0..self.random.below(3) {
            let top = pool.tops[self.random.below(LAYERS)].clone();
            if !layers.contains(&top) {
                layers.push(top);
            }
        }
        layers
    }

    /// As a pull: layers that are there are used, others come, then the image and its name.
    async fn import(&mut self) -> u64 {
        if self.named.len() > 6 {
            return self.remove_name().await;
        }
        let layers = self.layers();
        let ids: Vec<DiffId> = layers.iter().map(|(id, _)| *id).collect();
        let hold = self.store.hold(&ids).await;
        let mut operations = 2;
        for (number, (id, tar)) in layers.iter().enumerate() {
            operations += 1;
            if !self.store.has_layer(id).await.unwrap() {
                let tar = Box::new(Cursor::new(tar.clone()));
                self.store.import_layer(tar, Some(*id), &ids[..number]).await.unwrap();
                operations += 2;
            }
        }
        let name = format!("w{}-{}", self.number, self.random.below(8));
        // Equal layers are often one image, sometimes another.
        let created_by = vec![self.random.below(2).to_string(); ids.len()];
        let image = NewImage {
            layers: ids,
            name: Some(name.parse().unwrap()),
            created_by,
            ..NewImage::default()
        };
        let image = self.store.commit_image(image).await.unwrap();
        self.store.prove_layers(&image.layers).await.unwrap();
        drop(hold);
        self.shared.names.lock().unwrap().insert(name.clone());
        self.named.insert(name, image);
        operations + 2
    }

    /// All that this task refers to is whole.
    async fn check(&mut self) -> u64 {
        let images: Vec<ImageRecord> =
            self.named.values().chain(self.sandboxes.values()).cloned().collect();
        if images.is_empty() {
            return self.import().await;
        }
        let image = &images[self.random.below(images.len())];
        self.store.check(image).await.unwrap();
        let blobs = Arc::clone(self.store.blobs());
        for layer in &image.layers {
            blobs.verify(&layer.0, &mut |_| {}).unwrap();
        }
        2
    }

    /// As a create: of whatever image there is, which may go at any moment before it is held.
    async fn sandbox(&mut self) -> u64 {
        if self.sandboxes.len() > 4 {
            return self.remove_sandbox().await;
        }
        let names: Vec<String> = self.shared.names.lock().unwrap().iter().cloned().collect();
        if names.is_empty() {
            return self.import().await;
        }
        let name = &names[self.random.below(names.len())];
        let Ok(image) = self.store.resolve(name).await else { return 1 };
        let hold = self.store.hold(&image.layers).await;
        if self.store.metadata().get_image(&image.digest).await.unwrap().is_none() {
            return 3;
        }
        // From now on it must be mountable, whoever removes the image.
        self.store.prove_layers(&image.layers).await.unwrap();
        let record = SandboxRecord {
            id: SandboxId::new(),
            name: None,
            status: SandboxStatus::Stopped,
            image: name.clone(),
            image_digest: image.digest,
            env: BTreeMap::new(),
            limits: ResourceLimits::default(),
            slot: None,
            address: None,
            reason: None,
            driver: "native".into(),
            created_at: Timestamp::now(),
        };
        match self.store.metadata().insert_sandbox(&record).await {
            Ok(()) => {
                self.sandboxes.insert(record.id, image);
            }
            Err(MetadataError::ImageMissing { .. }) => {
                self.store.prove_layers(&image.layers).await.unwrap();
            }
            Err(error) => panic!("{error:?}"),
        }
        drop(hold);
        5
    }

    async fn remove_sandbox(&mut self) -> u64 {
        let Some(id) = self.sandboxes.keys().next().copied() else { return 1 };
        assert!(self.store.metadata().remove_sandbox(&id).await.unwrap());
        self.sandboxes.remove(&id);
        1
    }

    async fn remove_name(&mut self) -> u64 {
        let names: Vec<String> = self.named.keys().cloned().collect();
        if names.is_empty() {
            return 1;
        }
        let name = &names[self.random.below(names.len())];
        // As `rmi` does it, or only the name.
        let removed = if self.random.below(2) == 0 {
            self.store.remove_image(name).await
        } else {
            self.store.remove_name(name).await
        };
        match removed {
            Ok(_) => {
                self.shared.names.lock().unwrap().remove(name);
                self.named.remove(name);
            }
            Err(ImagesError::InUse { .. }) => {}
            Err(error) if error.code() == ErrorCode::ImageInUse => {}
            Err(error) => panic!("{error:?}"),
        }
        2
    }

    /// As a build: a layer on a base that is held, and its row.
    async fn step(&mut self) -> u64 {
        let layers = self.layers();
        let (id, tar) = &layers[0];
        let hold = self.store.hold(&[*id]).await;
        let tar = Box::new(Cursor::new(tar.clone()));
        self.store.import_layer(tar, Some(*id), &[]).await.unwrap();
        let key = StepKey::from(Digest::of(self.random.below(50).to_string()));
        let step = StepRecord { key, layer: Some(*id) };
        self.store.metadata().put_step(&step).await.unwrap();
        self.store.prove_layers(&[*id]).await.unwrap();
        drop(hold);
        6
    }

    /// Points a name of this task at another of its images.
    async fn rename(&mut self) -> u64 {
        let images: Vec<ImageRecord> = self.named.values().cloned().collect();
        let names: Vec<String> = self.named.keys().cloned().collect();
        if images.is_empty() {
            return self.import().await;
        }
        let name = &names[self.random.below(names.len())];
        let image = &images[self.random.below(images.len())];
        let parsed: ImageName = name.parse().unwrap();
        self.store.put_name(&parsed, &image.digest).await.unwrap();
        self.named.insert(name.clone(), image.clone());
        1
    }

    /// What a failure leaves: layers that nothing comes to need, a blob without a row.
    async fn leave_half(&mut self) -> u64 {
        let layers = self.layers();
        let (id, tar) = &layers[0];
        let tar = Box::new(Cursor::new(tar.clone()));
        let imported = self.store.import_layer(tar, Some(*id), &[]).await;
        if self.random.below(2) == 0 && imported.is_ok() {
            self.store.discard_layers(&[*id], &[*id]).await;
        }
        4
    }

    async fn collect(&mut self) -> u64 {
        let scope = match self.random.below(4) {
            0 => GcScope::Leftovers,
            1 => GcScope::Older(SignedDuration::from_millis(20)),
            _ => GcScope::All,
        };
        if self.random.below(4) == 0 {
            self.store.gc_plan(scope).await.unwrap();
        } else {
            let bytes = self.store.gc(scope).await.unwrap().bytes;
            self.shared.collected.fetch_add(bytes, Ordering::Relaxed);
        }
        1
    }
}

/// Every blob and index that images need.
fn needed(
    images: &[ImageRecord],
    needs_parents: &HashMap<DiffId, bool>,
) -> (BTreeSet<Digest>, BTreeSet<String>) {
    let (mut blobs, mut indexes) = (BTreeSet::new(), BTreeSet::new());
    for image in images {
        blobs.extend([image.digest, image.config_digest]);
        for count in 1..=image.layers.len() {
            let layer = image.layers[count - 1];
            blobs.insert(layer.0);
            indexes.insert(if needs_parents[&layer] {
                format!("chain-{}.erofs", ChainId::of(&image.layers[..count]).unwrap().hex())
            } else {
                format!("{}.erofs", layer.hex())
            });
        }
    }
    (blobs, indexes)
}

#[expect(clippy::print_stdout, reason = "the numbers of a full run are for the documentation")]
async fn run(seed: u64, operations: u64) {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new().prefix("kiln-model-").tempdir_in(place).unwrap();
    let store = open(dir.path()).await;
    let shared = Arc::new(Shared::default());
    let pool = Arc::new(Pool::new());
    let start = Instant::now();
    let tasks: Vec<_> = (0..WORKERS)
        .map(|number| {
            let worker = Worker {
                number,
                store: Arc::clone(&store),
                pool: Arc::clone(&pool),
                shared: Arc::clone(&shared),
                random: Random(seed.wrapping_mul(1000).wrapping_add(number)),
                named: BTreeMap::new(),
                sandboxes: HashMap::new(),
            };
            tokio::spawn(worker.run(operations / WORKERS))
        })
        .collect();
    let mut images = Vec::new();
    for task in tasks {
        let worker = task.await.unwrap();
        images.extend(worker.named.into_values());
        images.extend(worker.sandboxes.into_values());
    }
    store.gc(GcScope::All).await.unwrap();
    for image in &images {
        store.check(image).await.unwrap();
    }
    let rows = store.metadata().list_layers().await.unwrap();
    let needs_parents = rows.iter().map(|row| (row.diff_id, row.needs_parents)).collect();
    let (blobs, indexes) = needed(&images, &needs_parents);
    let found: BTreeSet<Digest> =
        store.blobs().list().unwrap().iter().map(|blob| blob.digest).collect();
    assert_eq!(found, blobs, "seed {seed}: blobs");
    let dir = std::fs::read_dir(dir.path().join("indexes")).unwrap();
    let found: BTreeSet<String> =
        dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, indexes, "seed {seed}: indexes");
    let layers: BTreeSet<DiffId> = images.iter().flat_map(|image| image.layers.clone()).collect();
    assert_eq!(rows.iter().map(|row| row.diff_id).collect::<BTreeSet<_>>(), layers);
    assert_eq!(store.fsck(Arc::new(|_| {})).await.unwrap().findings, []);
    println!(
        "gc model: seed {seed}, {} operations of {WORKERS} tasks in {:?}, {} kB collected beside them",
        shared.operations.load(Ordering::Relaxed),
        start.elapsed(),
        shared.collected.load(Ordering::Relaxed) / 1000,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn heavy_gc_beside_everything_else() {
    let full = std::env::var("KILN_TEST_MODEL").is_ok_and(|value| value == "full");
    let seed = std::env::var("KILN_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    run(seed, if full { 100_000 } else { 6_000 }).await;
}
