"""The HTTP server: OpenAI's, llama.cpp's and Ollama's routes over one engine that runs in a thread of its own."""
