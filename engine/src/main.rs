//! Userspace WireGuard on a TUN that exists already: `ss-warp-wireguard [-f] INTERFACE`.
//!
//! The protocol (handshakes, timers, replay window, cookies) is the library gotatun's. What is here moves
//! packets: in batches, in one thread, with every offload the kernel has. It is configured by the socket that
//! `wg` uses. `WG_RESERVED=1,2,3` are bytes 1 to 3 of each message, `WG_JUNK=COUNT,MIN,MAX` datagrams before
//! each handshake initiation.

mod checksum;
mod coalesce;
mod control;
mod engine;
mod inner;
mod outbox;
mod peer;
mod segment;
#[cfg(test)]
mod tests;
mod tun;
mod uapi;
mod udp;

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::control::Listener;
use crate::engine::{Engine, Turn};
use crate::tun::Tun;
use crate::uapi::Junk;

const NAME: &str = env!("CARGO_PKG_NAME");
/// A bug in this program, as in sysexits.h.
const SOFTWARE: i32 = 70;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["--version"] => {
            println!("{NAME} {} (gotatun 0.10.2)", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        ["-f", name] | [name] if !name.starts_with('-') => run(name),
        _ => Err(format!("usage: {NAME} [-f] INTERFACE")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{NAME}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Serve until SIGTERM or SIGINT, or until the interface or the control socket is deleted.
fn run(name: &str) -> Result<(), String> {
    keep_secrets();
    let text = std::env::var("WG_RESERVED").unwrap_or_default();
    let reserved =
        uapi::reserved(&text).map_err(|_| format!("WG_RESERVED={text}: expected three bytes, e.g. 1,2,3"))?;
    let text = std::env::var("WG_JUNK").unwrap_or_default();
    let junk: Junk =
        text.parse().map_err(|_| format!("WG_JUNK={text}: expected COUNT,MIN,MAX, e.g. 4,40,70"))?;

    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|error| format!("cannot watch signals: {error}"))?;

    let tun = Tun::attach(name).map_err(|error| format!("cannot attach to {name}: {error}"))?;
    let listener = Listener::listen(Path::new(control::DIRECTORY), name)
        .map_err(|error| format!("cannot listen on {}/{name}.sock: {error}", control::DIRECTORY))?;
    let mut engine = Engine::new(tun, Some(listener), reserved, junk)
        .map_err(|error| format!("cannot open the UDP socket: {error}"))?;
    loop {
        let turn = engine.turn(Some(signals.as_fd()), engine::TICK);
        if turn.map_err(|error| format!("cannot wait: {error}"))? != Turn::More {
            return Ok(());
        }
    }
}

/// No core, which would hold keys: neither by a signal nor by a panic, which ends us without one.
fn keep_secrets() {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{NAME}: {panic}");
        std::process::exit(SOFTWARE);
    }));
}
