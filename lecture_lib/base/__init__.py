"""The ground floor: paths, errors, files, records, device and corpus. Nothing here knows a chapter."""
