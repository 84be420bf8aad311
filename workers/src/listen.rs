//! The socket of a server.

use std::{io, net::SocketAddr};

use anyhow::anyhow;
use tokio::net::TcpListener;

/// Binds `address`, or says in a sentence why not.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!("{address} is taken by another process; end that one, or choose another with --listen")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("{address} may not be used by this user; choose a port from 1024 on")
        }
        io::ErrorKind::AddrNotAvailable => anyhow!("{} is no address of this machine", address.ip()),
        _ => anyhow!("{address} cannot be listened on: {error}"),
    })
}
