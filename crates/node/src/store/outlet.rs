//! A connection's writer, whichever transport it is of: so that an egress can hold it without being generic.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use roomcast_protocol::Packet;
use roomcast_transport::{PacketWriter, Tried};

use super::Egress;

/// What an egress can do with its writer at rest. Implemented for every [`PacketWriter`].
pub(super) trait Outlet: Send {
    /// See [`PacketWriter::try_write`].
    fn try_write(&mut self, batch: &[Packet]) -> Option<io::Result<Tried>>;

    /// See [`Egress::write_with`].
    fn write_with(self: Box<Self>, egress: Arc<Egress>, batch: Vec<Packet>)
    -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl<W: PacketWriter> Outlet for W {
    fn try_write(&mut self, batch: &[Packet]) -> Option<io::Result<Tried>> {
        PacketWriter::try_write(self, batch)
    }

    fn write_with(
        self: Box<Self>,
        egress: Arc<Egress>,
        batch: Vec<Packet>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(egress.write_with(self, batch))
    }
}
