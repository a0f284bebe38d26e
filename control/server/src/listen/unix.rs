//! The Unix socket: the kernel says which user and groups are at the other end.

use std::io;
use std::os::fd::AsFd as _;

use nix::unistd::{Gid, geteuid};
use octoplane_peercred::peer_groups;
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

use super::{Io, PAUSE, Reception};
use crate::access::{Classes, ClientId};

/// Who may do what on the Unix socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnixGate {
    /// Group that may do everything.
    pub(crate) group: Gid,
    /// Another group, and what it may do.
    pub(crate) other: Option<(Gid, Classes)>,
}

impl UnixGate {
    /// Lets clients in until nobody serves them any more.
    pub(crate) async fn run(self, listener: UnixListener, reception: Reception) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "control socket: nobody can be let in");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (uid, may) = match self.judge(&stream) {
                Ok(judged) => judged,
                Err(error) => {
                    debug!(%error, "control socket: who connects is not known");
                    continue;
                }
            };
            // The socket's mode and list keep others out already; a descriptor may have been handed on.
            if may == Classes::NONE {
                debug!(uid, "control socket: refused");
                continue;
            }
            match reception.clients.connect(ClientId::User(uid), may) {
                Err(reason) => debug!(uid, reason, "control socket: refused"),
                Ok(accepted) => {
                    if reception.served.send(Io::new(stream, accepted)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Which user it is, and what it may do.
    fn judge(&self, stream: &UnixStream) -> io::Result<(u32, Classes)> {
        let user = stream.peer_cred()?;
        let groups = peer_groups(stream.as_fd())?;
        Ok((user.uid(), self.classes(user.uid(), user.gid(), &groups)))
    }

    fn classes(&self, uid: u32, gid: u32, groups: &[u32]) -> Classes {
        let is_in = |group: Gid| gid == group.as_raw() || groups.contains(&group.as_raw());
        if uid == 0 || uid == geteuid().as_raw() || is_in(self.group) {
            return Classes::all();
        }
        match self.other {
            Some((group, may)) if is_in(group) => may,
            _ => Classes::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use octoplane_config::Class;

    use super::*;

    #[test]
    fn who_may_do_what() {
        let read = Classes::of(&[Class::Read]);
        let gate = UnixGate {
            group: Gid::from_raw(100),
            other: Some((Gid::from_raw(200), read)),
        };
        assert_eq!(gate.classes(0, 0, &[]), Classes::all(), "root");
        assert_eq!(
            gate.classes(geteuid().as_raw(), 5, &[]),
            Classes::all(),
            "ourselves"
        );
        assert_eq!(gate.classes(7777, 100, &[]), Classes::all(), "its first group");
        assert_eq!(
            gate.classes(7777, 7777, &[5, 100]),
            Classes::all(),
            "another of its groups"
        );
        assert_eq!(gate.classes(7777, 200, &[]), read);
        assert_eq!(gate.classes(7777, 7777, &[200]), read);
        assert_eq!(
            gate.classes(7777, 200, &[100]),
            Classes::all(),
            "the better of the two"
        );
        assert_eq!(gate.classes(7777, 7777, &[5]), Classes::NONE);
        let gate = UnixGate { other: None, ..gate };
        assert_eq!(gate.classes(7777, 200, &[200]), Classes::NONE);
    }
}
