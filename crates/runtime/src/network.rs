//! The sandbox network: one veth pair and one /30 for each sandbox, masquerade to the outside.
//!
//! A sandbox reaches what the host reaches, and neither other sandboxes nor the host itself (but for
//! answers, ICMP and a name server). Everything made on the host carries the block's number: interfaces
//! `kiln<block>s<slot>` and an nftables table `kiln<block>`; no other rule of the host is touched. A host
//! whose own rules drop forwarded packets (a firewall, Docker's `FORWARD` policy) has to let the
//! interfaces `kiln*` pass: nftables lets every table refuse, and none overrule another.
//!
//! All of it goes through netlink sockets of this process; no program is run.

mod attach;
mod files;
mod links;
mod namespace;
mod netlink;
mod nftables;
mod reply;
mod rules;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

pub use self::files::{hosts_file, resolv_conf};
use self::namespace::{keep, on_thread};
use crate::host::HostBlock;
use crate::runtime::Slot;

/// The sandbox network of one daemon. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Network {
    host: Arc<Host>,
}

/// The host's end.
#[derive(Debug)]
struct Host {
    block: HostBlock,
    netns: OwnedFd,
}

/// A sandbox's place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The sandbox's address.
    pub address: Ipv4Addr,
    /// The host's address on the same link, and the sandbox's default route.
    pub gateway: Ipv4Addr,
}

/// What went wrong with the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The kernel cannot filter and translate packets.
    #[error(
        "this kernel has no nf_tables, which sandboxes need for their way out: load the modules \
         nf_tables, nft_masq, nft_ct and nft_reject_ipv4, or create sandboxes without a network"
    )]
    NoNftables {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The rules for packets could not be changed.
    #[error("could not {action} the nftables table `{table}`")]
    Rules {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The table.
        table: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A netlink socket could not be opened.
    #[error("could not open a netlink socket")]
    Socket {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A link, an address or a route could not be changed.
    #[error("could not {action} network interface {interface}")]
    Link {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The interface.
        interface: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The network namespace could not be entered.
    #[error("could not enter the network namespace")]
    Enter {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A kernel setting could not be read or written.
    #[error("could not set {} to `{value}`", path.display())]
    Setting {
        /// Its file.
        path: PathBuf,
        /// The value.
        value: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The thread that does the work was lost.
    #[error("the thread for a network namespace failed")]
    Thread {
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Network {
    /// Sets the host up for this block's sandboxes: IPv4 forwarding, and the block's nftables table.
    ///
    /// "The host" is the network namespace of the calling thread. May be repeated: running sandboxes
    /// stay connected, and the rules are replaced in one step.
    ///
    /// # Errors
    /// [`NetworkError::NoNftables`] when the kernel lacks them; otherwise the step that failed.
    pub async fn setup(block: &HostBlock) -> Result<Network, NetworkError> {
        let block = block.clone();
        on_thread(move || {
            let netns = namespace::current()?;
            if namespace::get("ipv4/ip_forward")? != "1" {
                namespace::set("ipv4/ip_forward", "1")?;
            }
            rules::install(&block)?;
            Ok(Network { host: Arc::new(Host { block, netns }) })
        })
        .await
    }

    /// Connects a network namespace, whoever's user namespace owns it, and gives it its loopback.
    ///
    /// What an earlier sandbox left in the slot is replaced. If this fails, nothing is left; if the
    /// future is dropped midway, [`Network::detach`] removes what was made.
    pub async fn attach(
        &self,
        netns: BorrowedFd<'_>,
        slot: Slot,
    ) -> Result<Attachment, NetworkError> {
        let (host, netns) = (Arc::clone(&self.host), keep(netns)?);
        on_thread(move || host.enter()?.attach(&netns, slot)).await
    }

    /// Disconnects a slot. What is not connected is left alone.
    pub async fn detach(&self, slot: Slot) -> Result<(), NetworkError> {
        let host = Arc::clone(&self.host);
        on_thread(move || host.enter()?.detach(&host.block.interface(slot)).map(drop)).await
    }

    /// Gives a network namespace its loopback, and no way out.
    pub async fn loopback_only(&self, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        loopback_only(netns).await
    }

    /// Disconnects every slot of this block but `alive`, and says how many those were.
    pub async fn sweep(&self, alive: &[Slot]) -> Result<u32, NetworkError> {
        let (host, alive) = (Arc::clone(&self.host), alive.to_vec());
        on_thread(move || host.enter()?.sweep(&alive)).await
    }

    /// The slots of this block that are connected.
    pub async fn connected(&self) -> Result<Vec<Slot>, NetworkError> {
        let host = Arc::clone(&self.host);
        on_thread(move || host.enter()?.connected()).await
    }

    /// Removes everything that `setup` and `attach` made. Forwarding stays on: others may rely on it.
    pub async fn teardown(&self) -> Result<(), NetworkError> {
        let host = Arc::clone(&self.host);
        on_thread(move || {
            host.enter()?.sweep(&[])?;
            rules::remove(&host.block)
        })
        .await
    }
}

/// As [`Network::loopback_only`], for a host without a sandbox network.
pub async fn loopback_only(netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
    let netns = keep(netns)?;
    on_thread(move || attach::loopback_only(&netns)).await
}
