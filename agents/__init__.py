"""The agents: one algorithm a file, each a script and a module. Installed as `textgan_env.agents`."""
