//! `rooms/{id}/room`: the one that turns membership into the fan-out table. Media never comes here.

use std::sync::Arc;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};

use crate::store::RoomCell;

/// What the room's actor is told.
#[derive(Debug)]
pub enum Message {
    /// Membership has a newer revision.
    Changed,
}

/// One incarnation of a room's actor.
pub struct Room {
    cell: Arc<RoomCell>,
    generation: u64,
}

impl Worker for Room {
    type Message = Message;
    type Args = Arc<RoomCell>;

    async fn start(cell: Arc<RoomCell>, ctx: &Context<Self>) -> Result<Self, StartError> {
        let generation = cell.begin_generation();
        cell.publish(generation);
        // The last member may have left while no actor was there to hear it.
        let _ = ctx.address().send(Message::Changed);
        Ok(Self { cell, generation })
    }

    async fn handle(&mut self, message: Message, _: &Context<Self>) -> Result<Flow, Failure> {
        let Message::Changed = message;
        // A stale generation has a successor: there is nothing left to do for it.
        if !self.cell.publish(self.generation) || self.cell.close_if_empty(self.generation) {
            return Ok(Flow::Stop);
        }
        Ok(Flow::Continue)
    }
}
