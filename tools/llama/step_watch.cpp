// What another thread can know of a computing step, and how it ends one: for llama_set_abort_callback().
//
// ggml calls the function from its first thread after every node of the graph, hundreds of times in a step. As a
// callback of Python it would take the interpreter's lock each time; here it is one addition and one comparison.

#include <cstdint>

// Same layout in inference/engine/backends/llama_step_watch.py.
struct gemma_step_watch {
    uint64_t n_nodes; // computed so far, of all steps; written here alone
    int32_t aborts;   // 1: end the step at its next node
};

extern "C" __attribute__((visibility("default"))) bool gemma_step_node_done(void * data) {
    auto * watch = static_cast<gemma_step_watch *>(data);
    // One thread writes, so a load and a store are enough; both are whole for readers in other threads.
    __atomic_store_n(&watch->n_nodes, __atomic_load_n(&watch->n_nodes, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    return __atomic_load_n(&watch->aborts, __ATOMIC_RELAXED) != 0;
}
