//! What the device is, and where it fails.

/// Settings of a stand-in, from the environment variable `GQ_STAND_IN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// CUDA version of the driver: 1000 times the major one and 10 times the minor one (`version`).
    pub version: i32,
    /// Devices (`devices`).
    pub devices: i32,
    /// Compute capability, 10 times the major one and the minor one (`capability`).
    pub capability: i32,
    /// Bytes of memory (`memory`).
    pub memory: u64,
    /// Allocations before one fails for want of memory (`allocations`).
    pub allocations: u64,
    /// Launches before the device is lost (`launches`).
    pub launches: u64,
    /// Modules before one is not loaded for want of memory (`modules`).
    pub modules: u64,
    /// Launches before one is refused for want of memory (`room`).
    pub room: u64,
    /// What starting the driver answers (`init`).
    pub init: i32,
    /// The number of a device that cannot be opened (`closed`); -1: all can.
    pub closed: i32,
    /// Where captures of launches are refused (`capture`): 1 when they begin, 2 when they end, 3 when their graph is made
    /// ready, 4 when it is launched; 0: nowhere.
    pub capture: u64,
    /// Whether races are looked for: 0 or 1 (`races`).
    pub races: bool,
    /// Whether blocks and warps run last to first: 0 or 1 (`reverse`).
    pub reverse: bool,
    /// Whether what was launched is counted on standard error when the process unloads it: 0 or 1 (`count`).
    pub count: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            version: 12040,
            devices: 1,
            capability: 80,
            memory: 8 << 30,
            allocations: u64::MAX,
            launches: u64::MAX,
            modules: u64::MAX,
            room: u64::MAX,
            init: 0,
            closed: -1,
            capture: 0,
            races: true,
            reverse: false,
            count: false,
        }
    }
}

impl Settings {
    /// Of text such as `version=11080,memory=1000000`.
    ///
    /// # Panics
    /// For what is no setting: a test that sets nothing would pass for the wrong reason.
    pub fn parse(text: &str) -> Settings {
        let mut settings = Settings::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let number =
                part.split_once('=').and_then(|(key, value)| Some((key, value.parse::<u64>().ok()?)));
            match number {
                Some(("version", value)) => settings.version = value as i32,
                Some(("devices", value)) => settings.devices = value as i32,
                Some(("capability", value)) => settings.capability = value as i32,
                Some(("memory", value)) => settings.memory = value,
                Some(("allocations", value)) => settings.allocations = value,
                Some(("launches", value)) => settings.launches = value,
                Some(("modules", value)) => settings.modules = value,
                Some(("room", value)) => settings.room = value,
                Some(("init", value)) => settings.init = value as i32,
                Some(("closed", value)) => settings.closed = value as i32,
                Some(("capture", value)) => settings.capture = value,
                Some(("races", value)) => settings.races = value != 0,
                Some(("reverse", value)) => settings.reverse = value != 0,
                Some(("count", value)) => settings.count = value != 0,
                _ => panic!("GQ_STAND_IN: {part:?} is no setting"),
            }
        }
        settings
    }

    /// Of the environment.
    pub(crate) fn of_environment() -> Settings {
        Settings::parse(&std::env::var("GQ_STAND_IN").unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_others_refused() {
        assert_eq!(Settings::parse(""), Settings::default());
        let some = Settings::parse("memory=5,races=0,version=11080");
        assert_eq!((some.memory, some.races, some.version), (5, false, 11080));
        for text in ["memory", "memory=x", "colour=1"] {
            assert!(std::panic::catch_unwind(|| Settings::parse(text)).is_err(), "{text}");
        }
    }
}
