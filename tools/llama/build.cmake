# Included after llama.cpp's own project() line.

# llama-cpp-python insists on building the library behind llama.cpp's command line tools, which nothing here uses; a
# plain variable hides the cached one.
set(LLAMA_BUILD_COMMON OFF)

# Our own sources in ggml-cpu. The targets do not exist yet at this line.
set(GEMMA_LLAMA_FOLDER "${CMAKE_CURRENT_LIST_DIR}")
function(gemma_add_step_watch)
  if(NOT TARGET ggml-cpu)
    message(WARNING "Without the step watch of ${GEMMA_LLAMA_FOLDER}: these options leave no place for it.")
    return()
  endif()
  target_sources(ggml-cpu PRIVATE "${GEMMA_LLAMA_FOLDER}/step_watch.cpp")
endfunction()
function(gemma_add_matmul)
  if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR NOT CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    return()
  endif()
  if(NOT TARGET ggml-cpu OR NOT GGML_LLAMAFILE)
    message(WARNING "Without the matrix products of ${GEMMA_LLAMA_FOLDER}: these options leave no place for them.")
    return()
  endif()
  target_sources(ggml-cpu PRIVATE "${GEMMA_LLAMA_FOLDER}/matmul_avx512.cpp")
  target_link_options(ggml-cpu PRIVATE "LINKER:--wrap=llamafile_sgemm")
  # The linker wraps no calls inside what the compiler hands it as one piece.
  target_compile_options(ggml-cpu PRIVATE -fno-lto)
endfunction()
cmake_language(DEFER CALL gemma_add_step_watch)
cmake_language(DEFER CALL gemma_add_matmul)
