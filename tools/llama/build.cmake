# Included after llama.cpp's own project() line.

# llama-cpp-python insists on building the library behind llama.cpp's command line tools, which nothing here uses; a
# plain variable hides the cached one.
set(LLAMA_BUILD_COMMON OFF)

# Our own products of matrices. The targets do not exist yet at this line.
function(gemma_add_matmul)
  if(TARGET ggml-cpu AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    target_sources(ggml-cpu PRIVATE "${GEMMA_LLAMA_FOLDER}/matmul_avx512.cpp")
    target_link_options(ggml-cpu PRIVATE "LINKER:--wrap=llamafile_sgemm")
  endif()
endfunction()
set(GEMMA_LLAMA_FOLDER "${CMAKE_CURRENT_LIST_DIR}")
cmake_language(DEFER CALL gemma_add_matmul)
