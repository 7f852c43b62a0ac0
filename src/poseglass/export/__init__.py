"""Layer 9: writes programs as files for other runtimes, and checks them against PyTorch before they are kept."""
