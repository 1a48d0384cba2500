//! Writes a `firn.toml` that explains itself. Kept beside the parser, whose test reads back what
//! is written here and checks that no field was forgotten.

use std::fmt::Write;

use super::{ColdUrls, Config, KeySource};

/// One field: its explanation, its key, its value in TOML; no value writes it commented out,
/// with an example.
struct Field {
    about: &'static str,
    key: &'static str,
    value: Option<String>,
    example: &'static str,
}

pub(super) fn render(config: &Config) -> String {
    let mut text = String::from(
        "# A Firn volume. Read at mount; changes take effect at the next one.\n\
         # Sizes are written as \"64KiB\" or \"2TiB\", durations as \"90s\", \"15m\" or \"7d\".\n\
         # Credentials never belong here: the object store takes its standard environment\n\
         # variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT, AWS_REGION, ...).\n",
    );
    for field in fields(config) {
        text.push('\n');
        for line in field.about.lines() {
            let _ = writeln!(text, "# {}", line.trim());
        }
        let _ = match &field.value {
            Some(value) => writeln!(text, "{} = {value}", field.key),
            None => writeln!(text, "#{} = {}", field.key, field.example),
        };
    }
    text
}

/// A TOML string.
fn quoted<T: ToString + ?Sized>(value: &T) -> Option<String> {
    Some(toml::Value::String(value.to_string()).to_string())
}

fn fields(config: &Config) -> Vec<Field> {
    let mut fields = place_fields(config);
    fields.extend(behaviour_fields(config));
    fields.push(Field {
        about: "Where the numbers of `firn status` are served as metrics for Prometheus: an address\n\
                of the loopback interface, the absolute path of a Unix socket, or 0.0.0.0 and a port\n\
                for every interface, without a password. Nowhere when absent.",
        key: "metrics",
        value: config.metrics.as_ref().and_then(quoted),
        example: "\"127.0.0.1:9464\"",
    });
    fields
}

fn place_fields(config: &Config) -> Vec<Field> {
    let field = |about, key, value, example| Field { about, key, value, example };
    vec![
        field(
            "Version of everything stored in this volume. Not for editing.",
            "format",
            Some(config.format.to_string()),
            "",
        ),
        field(
            "The volume's identity, also in its cold tier. Not for editing.",
            "uuid",
            quoted(&config.uuid),
            "",
        ),
        field(
            "Directory of the hot tier, relative to this one unless absolute. Fast local disk:\n\
             everything is written here first. Move it only while unmounted.",
            "hot",
            quoted(&config.hot.display()),
            "",
        ),
        field(
            "Bytes this volume may use locally: hot blocks, indexes and databases together.\n\
             More keeps more data at local speed. At least 256MiB.",
            "hot_capacity",
            quoted(&config.hot_capacity),
            "",
        ),
        field(
            "Object store that keeps the blocks: file:///dir, s3://bucket/prefix,\n\
             gs://bucket/prefix or az://container/prefix. Without one the volume is local only,\n\
             and as safe as its disk. A list of several spreads every object over them, see\n\
             cold_parity; their order is for ever.",
            "cold",
            config.cold.as_ref().map(ColdUrls::to_toml),
            "\"s3://bucket/prefix\"",
        ),
        field(
            "Of several stores, how many of the last ones hold parity: any so many may be lost\n\
             without losing anything. Not for editing.",
            "cold_parity",
            config.cold_parity.map(|parity| parity.to_string()),
            "2",
        ),
        field(
            "Of several stores, how many must have their part of an object before it counts as\n\
             copied. All when absent: then nothing is copied while a store is away.",
            "cold_least_stores",
            config.cold_least_stores.map(|least| least.to_string()),
            "4",
        ),
        field(
            "Where the key is kept that unlocks what lies in the cold tier: a file, a variable of the\n\
             environment, or a program that prints it. There exactly when the volume was made with\n\
             `firn init --encrypt`; changed by `firn key rotate`.",
            "key",
            config.key.as_ref().map(KeySource::to_toml),
            "{ file = \"/etc/firn/vol.key\" }",
        ),
        field(
            "Bytes this volume may use in the cold tier; unlimited when absent. Bounds the bill,\n\
             and is part of what df shows as total.",
            "cold_capacity",
            config.cold_capacity.as_ref().and_then(quoted),
            "\"100TiB\"",
        ),
    ]
}

fn behaviour_fields(config: &Config) -> Vec<Field> {
    let field = |about, key, value| Field { about, key, value, example: "" };
    vec![
        field(
            "Bytes of memory for write buffers, caches, uploads and databases together. More\n\
             absorbs longer bursts; writers wait while it is full. At least 64MiB.",
            "memory",
            quoted(&config.memory),
        ),
        field(
            "Longest time between two backups of the namespace to the cold tier. Shorter loses\n\
             less with the machine and costs more requests.",
            "backup_interval",
            quoted(&config.backup_interval),
        ),
        field(
            "Copy full segments to the cold tier in the background. Off saves requests for\n\
             short-lived data, and leaves the hot tier the only copy until `firn tier archive`\n\
             or `firn umount`.",
            "copy_ahead",
            Some(config.copy_ahead.to_string()),
        ),
        field(
            "Age at which a full segment that nobody read meanwhile is compressed again as hard\n\
             as possible, while the volume is idle and at the lowest priority. Saves space; costs\n\
             processor time, and a second copy to cold. 0s switches it off.",
            "recompress_age",
            quoted(&config.recompress_age),
        ),
        field(
            "How long nothing must have been written or read before that begins.",
            "recompress_idle",
            quoted(&config.recompress_idle),
        ),
        field(
            "Longest time that written data stays in memory before it is flushed as a group.\n\
             Shorter loses less of what was never fsynced, longer packs better.",
            "flush_interval",
            quoted(&config.flush_interval),
        ),
        field(
            "A writer that saw no progress for this long gets EIO.",
            "write_deadline",
            quoted(&config.write_deadline),
        ),
        field(
            "A read from the cold tier that takes longer than this gets EIO.",
            "read_deadline",
            quoted(&config.read_deadline),
        ),
        field(
            "What a read of cold data does while the cold tier is known not to answer: \"wait\" for\n\
             it until read_deadline, or \"fail\" at once with EIO.\n\
             What policy.toml says comes first.",
            "cold_down",
            quoted(&config.cold_down),
        ),
        field(
            "How long umount waits for a cold tier that makes no progress. After that it leaves\n\
             the rest to the next mount: the data is safe in the hot tier.",
            "umount_deadline",
            quoted(&config.umount_deadline),
        ),
    ]
}
