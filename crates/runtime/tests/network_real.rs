//! The sandbox network against the kernel, in network namespaces of its own.

#![expect(clippy::print_stdout, reason = "a test says what it skips and how long things take")]

#[path = "network_real/lab.rs"]
mod lab;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_runtime::Slot;
use kiln_runtime::network::Network;
use lab::{Namespace, OUTSIDE, PATIENCE, UPLINK, World, all, eventually, privileged};

/// How long to wait for what must not come.
const SILENCE: Duration = Duration::from_millis(400);

fn refused<T: std::fmt::Debug>(what: &str, answer: std::io::Result<T>) {
    let error = answer.expect_err(what);
    // "Administratively prohibited" is this error at the sender.
    assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{what}: {error}");
}

#[test]
fn a_sandbox_reaches_the_outside_under_the_hosts_address() {
    if !privileged() {
        return;
    }
    let world = World::new();
    let sandbox = Namespace::new();
    let tcp = world.outside.serve_tcp(OUTSIDE);
    let udp = world.outside.serve_udp(OUTSIDE, 0);
    let block = world.block();
    let network = world.host.block_on(async || {
        let network = Network::setup(&block).await.unwrap();
        let place = network.attach(sandbox.fd(), Slot(4095)).await.unwrap();
        assert_eq!(
            (place.address, place.gateway),
            (block.guest(Slot(4095)), block.gateway(Slot(4095)))
        );
        network
    });

    assert_eq!(sandbox.interfaces(), ["eth0"]);
    assert_eq!(sandbox.ask_tcp(tcp, PATIENCE).unwrap(), UPLINK.to_string());
    assert_eq!(sandbox.ask_udp(Ipv4Addr::UNSPECIFIED, udp, PATIENCE).unwrap(), UPLINK.to_string());
    sandbox.ping(OUTSIDE, PATIENCE).unwrap();
    sandbox.ping(block.gateway(Slot(4095)), PATIENCE).unwrap();

    assert_eq!(sandbox.setting("ipv4/ping_group_range"), "0 2147483647");
    assert_eq!(sandbox.setting("ipv4/ip_unprivileged_port_start"), "0");
    assert_eq!(sandbox.setting("ipv6/conf/eth0/disable_ipv6"), "1");
    assert_eq!(sandbox.setting("ipv6/conf/lo/disable_ipv6"), "0");
    assert_eq!(world.host.setting("ipv4/ip_forward"), "1");
    // Settings belong to one namespace each.
    assert_eq!(world.host.setting("ipv4/ip_unprivileged_port_start"), "1024");

    let interface = block.interface(Slot(4095));
    assert_eq!(world.host.interfaces(), [interface.as_str(), "up0"]);
    assert_eq!(world.host.setting(&format!("ipv6/conf/{interface}/disable_ipv6")), "1");
    assert_eq!(world.host.setting(&format!("ipv4/conf/{interface}/rp_filter")), "1");
    world.host.block_on(async || {
        network.detach(Slot(4095)).await.unwrap();
        network.detach(Slot(4095)).await.unwrap();
    });
    assert_eq!(world.host.interfaces(), ["up0"]);
    assert_eq!(sandbox.interfaces(), [""; 0]);
}

#[test]
fn sandboxes_reach_neither_each_other_nor_the_host() {
    if !privileged() {
        return;
    }
    let world = World::new();
    let sandboxes: Vec<_> = (0..3).map(|_| Namespace::new()).collect();
    let (block, other) = (world.block(), world.block());
    world.host.block_on(async || {
        let network = Network::setup(&block).await.unwrap();
        network.attach(sandboxes[0].fd(), Slot(0)).await.unwrap();
        network.attach(sandboxes[1].fd(), Slot(1)).await.unwrap();
        let network = Network::setup(&other).await.unwrap();
        network.attach(sandboxes[2].fd(), Slot(0)).await.unwrap();
    });

    // The servers work: the host itself reaches them.
    let neighbour = sandboxes[1].serve_tcp(block.guest(Slot(1)));
    let stranger = sandboxes[2].serve_tcp(other.guest(Slot(0)));
    for server in [neighbour, stranger] {
        world.host.ask_tcp(server, PATIENCE).unwrap();
    }
    let gateway = world.host.serve_tcp(block.gateway(Slot(0)));
    let uplink = world.host.serve_tcp(UPLINK);
    world.outside.ask_tcp(uplink, PATIENCE).unwrap();

    world.host.add_route(Ipv4Addr::new(169, 254, 0, 0), 16, OUTSIDE);
    let cases = [
        ("a sandbox of the same block", neighbour),
        ("a sandbox of another block", stranger),
        ("the host's end of its link", gateway),
        ("the host's own address", uplink),
        ("a cloud's metadata", SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80)),
    ];
    for (what, server) in cases {
        refused(what, sandboxes[0].ask_tcp(server, PATIENCE));
    }
    refused("a ping", sandboxes[0].ping(block.guest(Slot(1)), PATIENCE));

    // From outside, by somebody who knows the way.
    world.outside.add_route(block.guest(Slot(1)), 32, UPLINK);
    refused("from outside", world.outside.ask_tcp(neighbour, PATIENCE));

    // A name server on the host may be asked.
    let gateway = block.gateway(Slot(0));
    let dns = world.host.serve_udp(gateway, 53);
    let answer = sandboxes[0].ask_udp(Ipv4Addr::UNSPECIFIED, dns, PATIENCE).unwrap();
    assert_eq!(answer, block.guest(Slot(0)).to_string());
}

#[test]
fn a_forged_sender_gets_nowhere() {
    if !privileged() {
        return;
    }
    let world = World::new();
    let (sandbox, neighbour) = (Namespace::new(), Namespace::new());
    let block = world.block();
    world.host.block_on(async || {
        let network = Network::setup(&block).await.unwrap();
        network.attach(sandbox.fd(), Slot(0)).await.unwrap();
        network.attach(neighbour.fd(), Slot(7)).await.unwrap();
    });
    let server = world.outside.serve_udp(OUTSIDE, 0);
    // What some distributions set: loose for all interfaces, whatever one of them says.
    world.host.set("ipv4/conf/all/rp_filter", "2");
    // So that the address would be known elsewhere.
    world.host.add_route(Ipv4Addr::new(198, 51, 100, 0), 24, OUTSIDE);
    for forged in [block.guest(Slot(7)), Ipv4Addr::new(198, 51, 100, 1)] {
        sandbox.add_address("lo", forged, 32);
        world.outside.add_route(forged, 32, UPLINK);
        let before = world.outside.received();
        let error = sandbox.ask_udp(forged, server, SILENCE).expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        assert_eq!(world.outside.received(), before, "not even the question got out");
    }
    sandbox.ask_udp(block.guest(Slot(0)), server, PATIENCE).unwrap();
}

#[test]
fn setting_up_again_keeps_connections_and_sweeping_keeps_the_living() {
    if !privileged() {
        return;
    }
    let world = World::new();
    let sandboxes: Vec<_> = (0..12).map(|_| Namespace::new()).collect();
    let (block, other) = (world.block(), world.block());
    let server = world.outside.serve_tcp(OUTSIDE);
    world.host.block_on(async || {
        let network = Network::setup(&block).await.unwrap();
        let attach = |slot: u32| network.attach(sandboxes[slot as usize].fd(), Slot(slot));
        for place in all((0..10).map(attach)).await {
            place.unwrap();
        }
        let strangers = Network::setup(&other).await.unwrap();
        strangers.attach(sandboxes[10].fd(), Slot(3)).await.unwrap();

        // The daemon is gone, and comes back.
        drop(network);
        let network = Network::setup(&block).await.unwrap();
        assert_eq!(network.sweep(&[Slot(3), Slot(5)]).await.unwrap(), 8);
        assert_eq!(network.sweep(&[Slot(3), Slot(5)]).await.unwrap(), 0);
    });
    let kept = [block.interface(Slot(3)), block.interface(Slot(5)), other.interface(Slot(3))];
    assert_eq!(world.host.interfaces(), [kept.as_slice(), &["up0".into()]].concat());
    for slot in [3, 5, 10] {
        assert_eq!(sandboxes[slot].ask_tcp(server, PATIENCE).unwrap(), UPLINK.to_string());
    }

    // What an earlier sandbox left in a slot does not get in the way of the next one.
    world.host.block_on(async || {
        let network = Network::setup(&block).await.unwrap();
        network.attach(sandboxes[11].fd(), Slot(3)).await.unwrap();
    });
    assert_eq!(sandboxes[3].interfaces(), [""; 0]);
    assert_eq!(sandboxes[11].ask_tcp(server, PATIENCE).unwrap(), UPLINK.to_string());

    world.host.block_on(async || {
        let network = Network::setup(&block).await.unwrap();
        network.teardown().await.unwrap();
        network.teardown().await.unwrap();
    });
    assert_eq!(world.host.interfaces(), [other.interface(Slot(3)), "up0".into()]);
    sandboxes[10].ask_tcp(server, PATIENCE).unwrap();
}

#[test]
fn without_a_way_out_there_is_still_a_loopback() {
    if !privileged() {
        return;
    }
    let sandbox = Namespace::new();
    sandbox.block_on(async || {
        kiln_runtime::network::loopback_only(sandbox.fd()).await.unwrap();
    });
    let server = sandbox.serve_tcp(Ipv4Addr::LOCALHOST);
    assert_eq!(sandbox.ask_tcp(server, PATIENCE).unwrap(), "127.0.0.1");
    assert_eq!(sandbox.interfaces(), [""; 0]);
    assert_eq!(sandbox.setting("ipv4/ping_group_range"), "0 2147483647");
    let away = sandbox.ask_tcp(SocketAddrV4::new(OUTSIDE, 80), PATIENCE).unwrap_err();
    assert_eq!(away.kind(), ErrorKind::NetworkUnreachable, "{away}");
}

#[test]
fn a_namespace_of_a_foreign_user_namespace_and_its_end() {
    if !privileged() {
        return;
    }
    let world = World::new();
    let server = world.outside.serve_tcp(OUTSIDE);
    let mut child = Command::new("unshare")
        .args(["--user", "--net", "sleep", "60"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let comm = format!("/proc/{}/comm", child.id());
    eventually("sleep runs", || std::fs::read_to_string(&comm).unwrap() == "sleep\n");
    let sandbox = Namespace::of_process(child.id());
    let block = world.block();
    let network = world.host.block_on(async || {
        let network = Network::setup(&block).await.unwrap();
        network.attach(sandbox.fd(), Slot(1)).await.unwrap();
        network
    });
    let seen = sandbox.ask_tcp(server, PATIENCE).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(seen, UPLINK.to_string());

    // The link goes with the namespace; a new one in the slot does not have to wait for that.
    drop(sandbox);
    let next = Namespace::new();
    world.host.block_on(async || network.attach(next.fd(), Slot(1)).await.unwrap());
    assert_eq!(next.ask_tcp(server, PATIENCE).unwrap(), UPLINK.to_string());
}

#[test]
fn a_failed_attach_leaves_nothing() {
    if !privileged() {
        return;
    }
    let world = World::new();
    let block = world.block();
    let sandbox = Namespace::new();
    sandbox.add_address("lo", block.guest(Slot(2)), 30);
    let no_namespace = std::fs::File::open("/dev/null").unwrap();
    world.host.block_on(async || {
        use std::os::fd::AsFd;
        let network = Network::setup(&block).await.unwrap();
        network.attach(no_namespace.as_fd(), Slot(2)).await.unwrap_err();
        // Its `eth0` is taken already.
        network.attach(sandbox.fd(), Slot(2)).await.unwrap();
        let error = network.attach(sandbox.fd(), Slot(3)).await.unwrap_err();
        assert!(error.to_string().contains(&block.interface(Slot(3))), "{error}");
    });
    assert_eq!(world.host.interfaces(), [block.interface(Slot(2)), "up0".into()]);
}

#[test]
fn attaching_takes_a_few_milliseconds() {
    if !privileged() {
        return;
    }
    const ROUNDS: usize = 50;
    let world = World::new();
    let block = world.block();
    let sandboxes: Vec<_> = (0..ROUNDS).map(|_| Namespace::new()).collect();
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    world.host.block_on(async || {
        let network = Network::setup(&block).await.unwrap();
        for sandbox in &sandboxes {
            let start = Instant::now();
            network.attach(sandbox.fd(), Slot(9)).await.unwrap();
            attach.push(start.elapsed());
            let start = Instant::now();
            network.detach(Slot(9)).await.unwrap();
            detach.push(start.elapsed());
        }
    });
    for (name, times) in [("attach", &mut attach), ("detach", &mut detach)] {
        times.sort();
        println!("{name}: p50 {:?}, max {:?}, n={ROUNDS}", times[ROUNDS / 2], times[ROUNDS - 1]);
        // The bound only catches a wait that should not be there; the figure is what is printed.
        assert!(times[ROUNDS / 2] < Duration::from_millis(500), "{name}: {times:?}");
    }
    assert_eq!(world.host.interfaces(), ["up0"]);
}
