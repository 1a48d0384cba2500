#![no_main]

firn_fuzz::target!(firn::fuzzing::policy);
