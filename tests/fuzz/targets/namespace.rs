#![no_main]

firn_fuzz::target!(firn_mount::fuzzing::namespace);
