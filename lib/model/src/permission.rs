//! What accounts may do, by the published names. A role maps names to bits.

/// May create.
pub const CREATE: u8 = 8;
/// May read.
pub const READ: u8 = 4;
/// May update.
pub const UPDATE: u8 = 2;
/// May delete.
pub const DELETE: u8 = 1;
/// May, for permissions that are yes or no.
pub const CAN: u8 = 1;

/// Read alarms and their steps.
pub const ALARM_READ: &str = "api_alarm_read";
/// Work with entities.
pub const ENTITY: &str = "api_entity";
/// Send events.
pub const EVENT: &str = "api_event";
/// Read the health of the platform.
pub const HEALTHCHECK: &str = "api_healthcheck";
/// Read metrics.
pub const METRICS_READ: &str = "api_metrics_read";
/// See, start and stop supervised services.
pub const SERVICES: &str = "api_services";

/// The role that may do everything.
pub const ADMIN_ROLE: &str = "admin";

/// Every permission with all its bits.
pub const ALL: &[(&str, u8)] = &[
    (ALARM_READ, CAN),
    (ENTITY, CREATE | READ | UPDATE | DELETE),
    (EVENT, CAN),
    (HEALTHCHECK, CAN),
    (METRICS_READ, CAN),
    (SERVICES, READ | UPDATE),
];

/// Whether `held` includes every bit of `wanted`.
#[must_use]
pub const fn allows(held: u8, wanted: u8) -> bool {
    held & wanted == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wanted_bit_has_to_be_held() {
        assert!(allows(CREATE | READ, READ));
        assert!(!allows(READ, READ | UPDATE));
        assert!(!allows(0, CAN));
    }
}
