//! What is said about one file: for `user.firn.*`, and for `firn policy explain`.

use firn_mount::types::Ino;
use firn_mount::volume::Told;

use super::Placement;

impl Placement {
    /// The value of an attribute; `None` where nothing is known.
    pub(super) fn tell(&self, ino: Ino, what: Told) -> Option<String> {
        let file = self.bare(&self.names.getattr(ino).ok()?).ok()?;
        match what {
            Told::Heat => Some(format!("{:.3}", file.heat)),
            Told::Reuse => file.p_reuse.map(|p| format!("{p:.3}")),
            Told::Policy => {
                let held = self.held();
                let decision = held.rules.decide(&file.subject());
                Some(held.rules.why(&file.subject(), &decision))
            }
        }
    }
}
