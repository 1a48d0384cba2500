//! Where the parity of what is written lies, by the class of the file as it is at that moment. Asked
//! for each write-back; a policy that says the same of all files costs no look at the file.

use firn_mount::types::Ino;
use firn_mount::volume::ParityChoice;
use firn_tiering::segment::ParityPlace;

use super::Placement;
use crate::policy::rules::Subject;

impl ParityChoice for Placement {
    fn parity(&self, ino: Ino, size: u64) -> ParityPlace {
        let held = self.held();
        if let Some(place) = held.rules.parity_of_all() {
            return place;
        }
        // Of a file that is going nothing more is kept.
        let Ok(attr) = self.names.getattr(ino) else { return ParityPlace::Inside };
        let own = self.names.properties_of(ino).ok();
        let path = self.names.path(ino);
        // It is being written: no time has passed since.
        let subject = Subject {
            path: &path,
            size: size.max(attr.size),
            uid: attr.uid,
            gid: attr.gid,
            dataset_class: own.as_ref().and_then(|own| own.tier.as_deref()),
            ..Subject::default()
        };
        held.rules.parity_of(&subject)
    }
}
