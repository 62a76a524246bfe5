//! The host block: the share of one host's addresses and user ids that belongs to one daemon.
//!
//! Several daemons may live on one host. Each claims a block; the block decides its /18 network out of
//! 10.212.0.0/14 and its user ids, so that no two daemons ever hand out the same ones. A claim is a
//! file that names the owner's data directory: it survives the daemon, and is free again once that
//! directory is gone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::runtime::{IDS_PER_SANDBOX, Slot};

/// The network that all blocks of all daemons share: its first address.
pub const POOL: Ipv4Addr = Ipv4Addr::new(10, 212, 0, 0);
/// The prefix length of [`POOL`].
pub const POOL_PREFIX: u8 = 14;
/// The prefix length of one block's network.
pub const BLOCK_PREFIX: u8 = 18;
/// Addresses of one sandbox's link (a /30).
const ADDRESSES_PER_SLOT: u32 = 4;
/// Host ids of one block: [`Slot::COUNT`] sandboxes of [`IDS_PER_SANDBOX`] ids.
const IDS_PER_BLOCK: u32 = Slot::COUNT * IDS_PER_SANDBOX;

/// The share of this host that one daemon uses. What takes a slot panics on one that is not below
/// [`Slot::COUNT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBlock {
    number: u8,
    owner: PathBuf,
    run_dir: PathBuf,
}

/// What went wrong with a claim.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The data directory cannot be named.
    #[error("the data directory {} cannot be resolved", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of the claims could not be used.
    #[error("could not {action} {}", path.display())]
    Claim {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Every block belongs to somebody.
    #[error(
        "all {} host blocks in {} are taken by other daemons' data directories: stop and remove one \
         of those daemons, or delete the claim file of one that is no longer used",
        HostBlock::COUNT,
        run_dir.display()
    )]
    Full {
        /// The directory of the claims.
        run_dir: PathBuf,
    },
}

impl HostBlock {
    /// How many blocks a host has.
    pub const COUNT: u8 = 14;

    /// Claims a block for the daemon whose data is in `data_dir`: the one it had before, or a free one.
    ///
    /// `run_dir` is made if it is missing, and has to be the same for all daemons of the host. A claim
    /// whose data directory no longer exists counts as free: the new owner has to sweep the block's
    /// network and cgroups of what a killed daemon may have left.
    ///
    /// # Errors
    /// When `data_dir` does not exist, the claims cannot be read or written, or no block is free.
    pub fn claim(run_dir: &Path, data_dir: &Path) -> Result<HostBlock, HostError> {
        let owner = fs::canonicalize(data_dir)
            .map_err(|source| HostError::DataDir { path: data_dir.into(), source })?;
        fs::create_dir_all(run_dir).map_err(at("make", run_dir))?;
        let _lock = lock(run_dir)?;
        let mut free = None;
        for number in 0..Self::COUNT {
            let path = claim_file(run_dir, number);
            match read_claim(&path)? {
                Some(other) if other == owner => {
                    return Ok(HostBlock { number, owner, run_dir: run_dir.into() });
                }
                Some(other) if in_use(&other) => {}
                _ => free = free.or(Some(number)),
            }
        }
        let number = free.ok_or_else(|| HostError::Full { run_dir: run_dir.into() })?;
        write_claim(run_dir, number, &owner)?;
        Ok(HostBlock { number, owner, run_dir: run_dir.into() })
    }

    /// Gives the block back. For a clean removal of the daemon, not for a stop: sandboxes that still
    /// use its ids or addresses would meet those of the next owner. Another owner's claim is left alone.
    pub fn release(self) -> Result<(), HostError> {
        let _lock = lock(&self.run_dir)?;
        let path = claim_file(&self.run_dir, self.number);
        if read_claim(&path)?.is_some_and(|owner| owner == self.owner) {
            fs::remove_file(&path).map_err(at("remove", &path))?;
        }
        Ok(())
    }

    /// A directory beside the claims, for mounts that only some processes see.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.run_dir.join("root")
    }

    /// The block's number, `0..COUNT`.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The group above the cgroups of this block's sandboxes: `kiln-3`.
    pub fn cgroup_parent(&self) -> String {
        format!("kiln-{}", self.number)
    }

    /// The first host user (and group) id of a slot; it is 0 inside. [`IDS_PER_SANDBOX`] ids follow.
    pub fn id_base(&self, slot: Slot) -> u32 {
        IDS_PER_BLOCK * (1 + u32::from(self.number)) + checked(slot) * IDS_PER_SANDBOX
    }

    /// The first address of the block's network, whose prefix length is [`BLOCK_PREFIX`].
    pub fn subnet(&self) -> Ipv4Addr {
        let size = 1 << (32 - u32::from(BLOCK_PREFIX));
        Ipv4Addr::from_bits(POOL.to_bits() + u32::from(self.number) * size)
    }

    /// The host's address on a sandbox's link, a /30; it is the sandbox's default route.
    pub fn gateway(&self, slot: Slot) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet().to_bits() + checked(slot) * ADDRESSES_PER_SLOT + 1)
    }

    /// The address of a sandbox.
    pub fn guest(&self, slot: Slot) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway(slot).to_bits() + 1)
    }

    /// The name of a slot's network interface on the host.
    pub fn interface(&self, slot: Slot) -> String {
        format!("{}{}", self.interface_prefix(), checked(slot))
    }

    /// What the names of this block's interfaces start with, and no other block's.
    pub fn interface_prefix(&self) -> String {
        format!("kiln{}s", self.number)
    }
}

/// Another sandbox's addresses and ids must never come out of a number beyond the range.
fn checked(slot: Slot) -> u32 {
    assert!(slot.0 < Slot::COUNT, "slot {} is not below {}", slot.0, Slot::COUNT);
    slot.0
}

fn claim_file(run_dir: &Path, number: u8) -> PathBuf {
    run_dir.join(number.to_string())
}

/// Held until the file is dropped; a process that dies lets go of it.
fn lock(run_dir: &Path) -> Result<File, HostError> {
    let path = run_dir.join("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| at("open", &path)(errno.into()))?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
        .map_err(|errno| at("lock", &path)(errno.into()))?;
    Ok(file.into())
}

fn read_claim(path: &Path) -> Result<Option<PathBuf>, HostError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(std::ffi::OsString::from_vec(bytes).into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// What cannot be looked at is in use: a block taken from a living daemon would mix up two of them.
fn in_use(owner: &Path) -> bool {
    match fs::metadata(owner) {
        Ok(_) => true,
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
    }
}

/// A reader without the lock (a person) never sees half a claim.
fn write_claim(run_dir: &Path, number: u8, owner: &Path) -> Result<(), HostError> {
    let path = claim_file(run_dir, number);
    let temporary = run_dir.join("claim.new");
    let mut file = File::create(&temporary).map_err(at("make", &temporary))?;
    file.write_all(owner.as_os_str().as_bytes()).map_err(at("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(at("make", &path))
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HostError {
    let path = path.into();
    move |source| HostError::Claim { action, path, source }
}
