//! Network namespaces of a test's own: a host, an outside world, and sandboxes.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_runtime::host::HostBlock;
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The host's address towards the outside.
pub(crate) const UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// A machine outside, which knows no way to the sandboxes' addresses.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// How long something that should work may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this process may make namespaces; says so when not.
pub(crate) fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP network namespaces need root");
    }
    root
}

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    pub(crate) fn new() -> Namespace {
        let make = || {
            #[expect(
                deprecated,
                reason = "its only danger, unsharing the descriptors, is not used"
            )]
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
        };
        Namespace(std::thread::scope(|scope| scope.spawn(make).join().unwrap()))
    }

    pub(crate) fn of_process(pid: u32) -> Namespace {
        Namespace(std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap().into())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Runs something inside, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// Runs something asynchronous inside; what it spawns is inside too.
    pub(crate) fn block_on<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work())
        })
    }

    /// The names of the interfaces inside, but for `lo`.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let text = self.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
        let mut names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
        names.retain(|name| name != "lo");
        names.sort();
        names
    }

    /// A kernel setting inside.
    pub(crate) fn setting(&self, name: &str) -> String {
        let path = Path::new("/proc/sys/net").join(name);
        self.run(|| std::fs::read_to_string(path).unwrap()).trim().replace('\t', " ")
    }

    /// Changes a kernel setting inside.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(name);
        self.run(|| std::fs::write(path, value).unwrap());
    }

    /// How many IP datagrams (UDP) were delivered inside, to anybody or nobody.
    pub(crate) fn received(&self) -> u64 {
        let text = self.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
        let udp = text.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1).unwrap();
        udp.split(' ').next().unwrap().parse().unwrap()
    }

    /// Adds an address to an interface inside.
    pub(crate) fn add_address(&self, interface: &str, address: Ipv4Addr, prefix: u8) {
        self.netlink(async |handle| {
            let index = index(interface);
            handle.address().add(index, address.into(), prefix).execute().await.unwrap();
        });
    }

    /// Adds a route inside.
    pub(crate) fn add_route(&self, to: Ipv4Addr, prefix: u8, via: Ipv4Addr) {
        self.netlink(async |handle| {
            let route = RouteMessageBuilder::<Ipv4Addr>::new();
            let route = route.destination_prefix(to, prefix).gateway(via).build();
            handle.route().add(route).execute().await.unwrap();
        });
    }

    /// Starts an interface inside.
    pub(crate) fn up(&self, interface: &str) {
        self.netlink(async |handle| {
            let link = LinkUnspec::new_with_index(index(interface)).up().build();
            handle.link().set(link).execute().await.unwrap();
        });
    }

    fn netlink(&self, work: impl AsyncFnOnce(rtnetlink::Handle) + Send) {
        self.block_on(async || {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            work(handle).await;
        });
    }

    /// Listens inside, and answers every connection with the address that it came from.
    pub(crate) fn serve_tcp(&self, address: Ipv4Addr) -> SocketAddrV4 {
        let listener = self.run(|| TcpListener::bind((address, 0)).unwrap());
        let bound = v4(listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip().to_string();
                let _ = stream.write_all(peer.as_bytes());
            }
        });
        bound
    }

    /// As [`Namespace::serve_tcp`], for datagrams.
    pub(crate) fn serve_udp(&self, address: Ipv4Addr, port: u16) -> SocketAddrV4 {
        let socket = self.run(|| UdpSocket::bind((address, port)).unwrap());
        let bound = v4(socket.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
        bound
    }

    /// Connects from inside; gives the address that the server saw.
    pub(crate) fn ask_tcp(
        &self,
        server: SocketAddrV4,
        patience: Duration,
    ) -> std::io::Result<String> {
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&server.into(), patience)?;
            let mut answer = String::new();
            stream.set_read_timeout(Some(patience))?;
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// Sends a datagram from inside, from `source`; gives the address that the server saw.
    pub(crate) fn ask_udp(
        &self,
        source: Ipv4Addr,
        server: SocketAddrV4,
        patience: Duration,
    ) -> std::io::Result<String> {
        self.run(|| {
            let socket = UdpSocket::bind((source, 0))?;
            socket.connect(server)?;
            socket.send(b"who am I")?;
            socket.set_read_timeout(Some(patience))?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    }

    /// Sends an echo request (RFC 792) as an ordinary user would, and waits for the reply.
    pub(crate) fn ping(&self, to: Ipv4Addr, patience: Duration) -> std::io::Result<()> {
        use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
        self.run(|| {
            let kind = SocketType::DGRAM;
            let socket = rustix::net::socket(AddressFamily::INET, kind, Some(ipproto::ICMP))?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience))?;
            let request = [8, 0, 0, 0, 0, 0, 0, 1, b'k'];
            let to = SocketAddr::from((to, 0));
            // Connected, since only then a refusal reaches the sender.
            rustix::net::connect(&socket, &to)?;
            rustix::net::send(&socket, &request, SendFlags::empty())?;
            let mut reply = [0; 64];
            let (_, length) = rustix::net::recv(&socket, &mut reply[..], RecvFlags::empty())?;
            assert_eq!((length, reply[0], reply[8]), (9, 0, b'k'));
            Ok(())
        })
    }
}

/// A host with an outside world.
pub(crate) struct World {
    pub(crate) host: Namespace,
    pub(crate) outside: Namespace,
    run_dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> World {
        let (host, outside) = (Namespace::new(), Namespace::new());
        let peer = outside.fd().as_raw_fd();
        host.netlink(async |handle| {
            handle.link().add(LinkVeth::new("up0", "up1").build()).execute().await.unwrap();
            let moved = LinkUnspec::new_with_index(index("up1")).setns_by_fd(peer).build();
            handle.link().set(moved).execute().await.unwrap();
        });
        for (namespace, interface, address) in [(&host, "up0", UPLINK), (&outside, "up1", OUTSIDE)]
        {
            namespace.up("lo");
            namespace.add_address(interface, address, 24);
            namespace.up(interface);
        }
        World { host, outside, run_dir: tempfile::tempdir().unwrap() }
    }

    /// The block of a further daemon on this host.
    pub(crate) fn block(&self) -> HostBlock {
        let data = tempfile::tempdir_in(self.run_dir.path()).unwrap().keep();
        HostBlock::claim(&self.run_dir.path().join("blocks"), &data).unwrap()
    }
}

/// Waits for something that comes about by itself.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The index of an interface of the calling thread's namespace.
fn index(interface: &str) -> u32 {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    rustix::net::netdevice::name_to_index(&socket, interface).unwrap()
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("{address} is not IPv4"),
    }
}

/// Keeps futures that hold borrowed things out of the way of the type checker.
pub(crate) async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    futures_util::future::join_all(futures).await
}
