//! The two sides from which a channel is used; russh has one message type for each.

use russh::{ChannelId, ChannelMsg, client, server};

/// A side: the client's or the server's.
pub trait Side: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static {}

/// The side that connects.
pub type ClientSide = client::Msg;

/// The side that is connected to.
pub type ServerSide = server::Msg;

impl Side for ClientSide {}
impl Side for ServerSide {}
