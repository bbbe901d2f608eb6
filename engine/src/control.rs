//! The control socket: who connects, and requests and answers without ever blocking the loop.

use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use zeroize::{Zeroize, Zeroizing};

/// Where `wg` looks.
pub const DIRECTORY: &str = "/var/run/wireguard";
/// The oldest gives way to one more.
const MOST: usize = 16;
/// The longest request, with room for hundreds of networks.
const LONGEST: usize = 32_768;

/// The listening socket; its file goes with it.
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Listen for the interface `name`, for its owner alone. A stale socket is replaced.
    pub fn listen(directory: &Path, name: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(format!("{name}.sock"));
        if path.exists() {
            if UnixStream::connect(&path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(&path)?;
        }
        let before = umask(Mode::from_bits_truncate(0o077));
        let listener = UnixListener::bind(&path);
        umask(before);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        let inode = fs::metadata(&path)?.ino();
        Ok(Self { listener, path, inode })
    }

    /// Whether the file is still there, and ours.
    pub fn exists(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// Take whoever waits.
    pub fn accept(&self, clients: &mut Vec<Client>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                if clients.len() == MOST {
                    clients.remove(0);
                }
                clients.push(Client::new(stream));
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A newer engine may have replaced it.
        if self.exists() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One connection. Requests and answers hold keys, and are wiped.
pub struct Client {
    stream: UnixStream,
    /// Never longer than its capacity, so that growing leaves no copy behind.
    request: Zeroizing<Vec<u8>>,
    answer: Zeroizing<Vec<u8>>,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        let request = Zeroizing::new(Vec::with_capacity(LONGEST));
        Self { stream, request, answer: Zeroizing::new(Vec::new()) }
    }

    /// Whether an answer waits for room.
    pub fn answering(&self) -> bool {
        !self.answer.is_empty()
    }

    /// Read what came and answer every whole request; false when the connection is over.
    pub fn serve(&mut self, mut answer: impl FnMut(&str) -> Zeroizing<String>) -> bool {
        let mut block = Zeroizing::new([0; 4_096]);
        loop {
            if !self.write() {
                return false;
            }
            if self.answering() {
                return true;
            }
            if let Some(end) = self.request.windows(2).position(|pair| pair == b"\n\n") {
                let end = end + 2;
                let Ok(text) = std::str::from_utf8(&self.request[..end]) else { return false };
                self.answer = Zeroizing::new(answer(text).as_bytes().to_vec());
                let rest = self.request.len() - end;
                self.request.copy_within(end.., 0);
                self.request[rest..].zeroize();
                self.request.truncate(rest);
                continue;
            }
            match self.stream.read(&mut block[..]) {
                Ok(0) => return false,
                Ok(count) if self.request.len() + count > LONGEST => return false,
                Ok(count) => self.request.extend_from_slice(&block[..count]),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn write(&mut self) -> bool {
        while !self.answer.is_empty() {
            match self.stream.write(&self.answer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.answer.copy_within(count.., 0);
                    let rest = self.answer.len() - count;
                    self.answer.truncate(rest);
                }
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
