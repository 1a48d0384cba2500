//! The namespace: inodes, directory entries, extended attributes, extents and back-references.
