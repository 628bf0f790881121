"""Post-training of Hugging Face models: fine-tuning, preferences and verifiable rewards, by TRL and a PPO of our own."""
