//! A request to `up`, for tests.

use super::UpRequest;
use crate::tun::DeviceRequest;
use crate::types::{DevicePrefix, Mode};

/// A request with these routes and defaults.
pub(super) fn request(routes: &[&str]) -> UpRequest {
    UpRequest {
        args: Default::default(),
        background: false,
        routes: routes.iter().map(|route| route.parse().unwrap()).collect(),
        excludes: Vec::new(),
        address: None,
        peer_address: None,
        mtu: None,
        nat: None,
        inbound: false,
        forward: Vec::new(),
        mode: Mode::PointToPoint,
        device: DeviceRequest::FirstFree(DevicePrefix::default()),
        peer_unit: None,
        carrier: Default::default(),
        acceptance: Default::default(),
        strict: false,
    }
}
