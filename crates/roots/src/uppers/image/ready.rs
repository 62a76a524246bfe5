//! Images made in advance: making one takes longer than all the rest of a new sandbox.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::failure::Failure;
use super::template::Template;
use super::{device, mount};
use crate::RootsError;

/// How many templates are kept. Another size takes the place of any.
const TEMPLATES: usize = 16;

/// On a disk with fewer free bytes there is no stock: images are made when they are needed.
const LEAST_FREE: u64 = 16 << 20;

/// An image without a name, mounted.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) image: OwnedFd,
    pub(super) mount: OwnedFd,
}

impl Fresh {
    pub(super) fn make(template: &Template, dir: &Path) -> Result<Self, Failure> {
        let image = template.image(dir)?;
        let mount = mount::mount(&device::device(&image)?)?;
        mount::warm_up(&mount)?;
        Ok(Self { image, mount })
    }

    /// Whether it still takes writes. One from a time when the host's disk was full may have met an
    /// error.
    fn is_sound(&self) -> bool {
        mount::warm_up(&self.mount).is_ok()
    }
}

/// Images by size, some of them in stock.
#[derive(Debug)]
pub(super) struct Ready {
    shared: Arc<Shared>,
    /// The one that fills the stock, once there is to be one.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    templates: Mutex<HashMap<u64, Arc<Template>>>,
    stock: Mutex<Stock>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Stock {
    shelves: HashMap<u64, Shelf>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shelf {
    wanted: usize,
    images: Vec<Fresh>,
    /// Set when one could not be made, until one is taken: the reason may be gone by then, and whoever
    /// takes one sees it if it is not.
    failed: bool,
}

impl Ready {
    pub(super) fn new(dir: &Path) -> Self {
        let shared = Shared {
            dir: dir.to_owned(),
            templates: Mutex::default(),
            stock: Mutex::default(),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// Has `count` images of `size` bytes made and kept.
    pub(super) fn keep(&self, size: u64, count: usize) {
        self.shared.stock().shelves.entry(size).or_default().wanted = count;
        self.shared.changed.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            // Without the thread there is no stock, and every image is made when it is needed.
            *thread = std::thread::Builder::new()
                .name("kiln-disks".to_owned())
                .spawn(move || shared.fill())
                .ok();
        }
    }

    /// An image of `size` bytes: from the stock, else a new one.
    pub(super) fn take(&self, size: u64) -> Result<Fresh, RootsError> {
        loop {
            let taken = {
                let mut stock = self.shared.stock();
                stock.shelves.get_mut(&size).and_then(|shelf| {
                    shelf.failed = false;
                    shelf.images.pop()
                })
            };
            self.shared.changed.notify_all();
            match taken {
                None => return self.shared.make(size),
                Some(fresh) if fresh.is_sound() => return Ok(fresh),
                Some(_) => {}
            }
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.shared.stock().closed = true;
        self.shared.changed.notify_all();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // What it holds is in use until it ends; a panic of it is told by itself.
        let _ended = thread.map(JoinHandle::join);
    }
}

impl Shared {
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, size: u64) -> Result<Fresh, RootsError> {
        let template = self.template(size)?;
        let named = |failure: Failure| failure.with(format!("of {} MiB", size >> 20));
        Fresh::make(&template, &self.dir).map_err(named)
    }

    fn template(&self, size: u64) -> Result<Arc<Template>, RootsError> {
        // Held while one is made: whoever wants the same one would only make it twice.
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = templates.get(&size) {
            return Ok(Arc::clone(template));
        }
        let template = Arc::new(Template::make(&self.dir, size)?);
        if templates.len() >= TEMPLATES
            && let Some(size) = templates.keys().next().copied()
        {
            templates.remove(&size);
        }
        templates.insert(size, Arc::clone(&template));
        Ok(template)
    }

    /// Whether a stock takes nothing away that others need, if only to make room.
    fn has_room(&self) -> bool {
        rustix::fs::statvfs(&self.dir)
            .is_ok_and(|found| found.f_bavail * found.f_frsize >= LEAST_FREE)
    }

    /// Fills the stock until it is closed.
    fn fill(&self) {
        // Whoever waits for something comes first. Without the right to say so it is a thread as others.
        let _polite = rustix::process::setpriority_process(None, 10);
        let mut stock = self.stock();
        while !stock.closed {
            let lacking = |(size, shelf): (&u64, &Shelf)| {
                (!shelf.failed && shelf.images.len() < shelf.wanted).then_some(*size)
            };
            let Some(size) = stock.shelves.iter().find_map(lacking) else {
                stock = self.changed.wait(stock).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(stock);
            let made = self.has_room().then(|| self.make(size));
            stock = self.stock();
            if let Some(shelf) = stock.shelves.get_mut(&size) {
                match made {
                    Some(Ok(fresh)) => shelf.images.push(fresh),
                    Some(Err(_)) | None => shelf.failed = true,
                }
            }
        }
    }
}
