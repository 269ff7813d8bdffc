# Included after llama.cpp's own project() line. llama-cpp-python insists on building the library behind llama.cpp's
# command line tools, which nothing here uses; a plain variable hides the cached one.
set(LLAMA_BUILD_COMMON OFF)
