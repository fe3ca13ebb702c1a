//! The settings that act while the node runs, in the form that the media path reads.

use std::time::Duration;

use roomcast_relay::cluster::PresenceSettings;
use roomcast_relay::{AdmissionLimits, EgressLimits, IngressLimits, Network};

use crate::config::{LimitSettings, Settings, TimerSettings};

/// The runtime's timers fire up to this much late, even on an idle machine.
const TIMER: Duration = Duration::from_millis(1);

/// One consistent set of live settings; replaced whole.
#[derive(Clone, Debug)]
pub struct Live {
    /// What an egress queue may hold.
    pub egress: EgressLimits,
    /// What a connection may send.
    pub ingress: IngressLimits,
    /// Who may connect.
    pub admission: AdmissionLimits,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// All limits, as configured.
    pub limits: LimitSettings,
    /// All timers, as configured.
    pub timers: TimerSettings,
    /// How long a dense connection waits for a batch: the setting, less what the runtime's timer may be late.
    pub coalesce: Duration,
    /// A queue full of control for this long: the client is disconnected.
    pub slow_client: Duration,
    /// Browsers' origins that may connect; empty: any.
    pub origins: Vec<String>,
    /// How nodes see each other.
    pub presence: PresenceSettings,
    /// Whether faults may be injected.
    pub chaos: bool,
}

impl From<&Settings> for Live {
    fn from(settings: &Settings) -> Self {
        let limits = &settings.limits;
        Self {
            egress: EgressLimits {
                packets: settings.egress.queue_packets,
                bytes: settings.egress.queue_bytes,
                max_delay: settings.egress.max_delay,
            },
            ingress: IngressLimits {
                packets_per_second: limits.ingress_packets_per_second.into(),
                bytes_per_second: limits.ingress_bytes_per_second.into(),
                max_packet_bytes: limits.max_packet_bytes,
            },
            admission: AdmissionLimits {
                max_connections: limits.max_connections,
                max_connections_per_ip: limits.max_connections_per_ip,
                max_rooms: limits.max_rooms,
                max_room_members: limits.max_room_members,
            },
            // What does not parse was refused when the settings were read.
            trusted_proxies: limits.trusted_proxies.iter().filter_map(|network| network.parse().ok()).collect(),
            limits: limits.clone(),
            timers: settings.timers.clone(),
            coalesce: settings.egress.coalesce.saturating_sub(TIMER),
            slow_client: settings.egress.slow_client,
            origins: settings.auth.origins.clone(),
            presence: PresenceSettings {
                heartbeat: settings.presence.heartbeat,
                lost_after: settings.presence.lost_after,
            },
            chaos: settings.chaos.enabled,
        }
    }
}
