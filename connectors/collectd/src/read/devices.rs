//! A table of devices that come and go, with the latest counts of each.

use crate::batch::Prefix;

/// The most devices of one sort that are watched.
const MAX_DEVICES: usize = 512;

/// The devices of one sort, `N` counts each.
#[derive(Debug)]
pub(crate) struct Devices<const N: usize> {
    plugin: &'static str,
    ignored: Vec<String>,
    known: Vec<Device<N>>,
    /// The device after the one seen last: the kernel lists them in the same order each time.
    next: usize,
}

#[derive(Debug)]
pub(crate) struct Device<const N: usize> {
    name: String,
    pub(crate) prefix: Prefix,
    /// The counts of the tick before; none when it is new, or ignored.
    pub(crate) last: Option<[u64; N]>,
    pub(crate) wanted: bool,
    seen: bool,
}

impl<const N: usize> Devices<N> {
    pub(crate) fn new(plugin: &'static str, ignored: Vec<String>) -> Self {
        Self { plugin, ignored, known: Vec::new(), next: 0 }
    }

    /// Begins a tick.
    pub(crate) fn begin(&mut self) {
        self.next = 0;
    }

    /// Ends a tick: forgets the devices that are gone.
    pub(crate) fn end(&mut self) {
        self.known.retain_mut(|device| std::mem::take(&mut device.seen));
    }

    /// Finds or adds the device `name`; `wanted` decides once, when it is new. None if it is not to be watched.
    pub(crate) fn get(&mut self, name: &str, wanted: impl FnOnce(&str) -> bool) -> Option<&mut Device<N>> {
        let at = match self.known.get(self.next) {
            Some(device) if device.name == name => self.next,
            _ => match self.known.iter().position(|device| device.name == name) {
                Some(at) => at,
                None if self.known.len() >= MAX_DEVICES => return None,
                None => {
                    let wanted = !self.ignored.iter().any(|pattern| matches(pattern, name)) && wanted(name);
                    let prefix = Prefix::new(self.plugin, name);
                    self.known.push(Device { name: name.to_owned(), prefix, last: None, wanted, seen: true });
                    self.known.len() - 1
                }
            },
        };
        self.next = at + 1;
        let device = self.known.get_mut(at)?;
        device.seen = true;
        device.wanted.then_some(device)
    }
}

/// Tells whether `name` is `pattern`, in which one `*` stands for anything.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("veth*", "veth12") && matches("*", "") && matches("a*z", "az") && matches("lo", "lo"));
        assert!(!matches("veth*", "eth0") && !matches("aba*ba", "aba") && !matches("lo", "lo0"));
    }

    #[test]
    fn devices_that_go_are_forgotten_and_come_back_as_new() {
        let mut devices = Devices::<1>::new("disk", vec!["loop*".to_owned()]);
        for (tick, names) in [vec!["a", "b", "loop0"], vec!["b"], vec!["b", "a"]].into_iter().enumerate() {
            devices.begin();
            for name in names {
                let fresh = devices.get(name, |_| true).map(|device| device.last.replace([1]).is_none());
                let expected = match (name, tick) {
                    ("loop0", _) => None,
                    ("b", 1 | 2) => Some(false),
                    _ => Some(true),
                };
                assert_eq!(fresh, expected, "{name} in tick {tick}");
            }
            devices.end();
        }
        assert_eq!(devices.known.len(), 2);
    }

    #[test]
    fn no_more_devices_than_the_bound_are_kept() {
        let mut devices = Devices::<1>::new("disk", Vec::new());
        let watched = (0..MAX_DEVICES + 5).filter(|n| devices.get(&n.to_string(), |_| true).is_some()).count();
        assert_eq!(watched, MAX_DEVICES);
    }
}
