"""What is claimed about AttRec is measured here; see docs/benchmarks.md."""
