#include "arena.h"

enum { ALIGNMENT = 64 }; // of the runtime's own tensors

static const size_t NOWHERE = SIZE_MAX;

static size_t align(size_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

// The largest tenant that has no place yet, or NULL.
static subbyte_tenant *find_largest(subbyte_tenant *tenants, int32_t count) {
  subbyte_tenant *largest = NULL;
  for (subbyte_tenant *tenant = tenants; tenant < tenants + count; ++tenant) {
    if (tenant->bytes > 0 && tenant->offset == NOWHERE && (largest == NULL || tenant->bytes > largest->bytes)) {
      largest = tenant;
    }
  }
  return largest;
}

// A tenant that is in the way of `tenant` at `offset`, or NULL.
static const subbyte_tenant *find_obstacle(const subbyte_tenant *tenants, int32_t count, const subbyte_tenant *tenant,
                                           size_t offset) {
  for (const subbyte_tenant *other = tenants; other < tenants + count; ++other) {
    const int is_placed = other->bytes > 0 && other->offset != NOWHERE;
    const int in_use_at_once = other->first <= tenant->last && tenant->first <= other->last;
    if (is_placed && in_use_at_once && other->offset < offset + tenant->bytes &&
        offset < other->offset + other->bytes) {
      return other;
    }
  }
  return NULL;
}

size_t subbyte_plan_arena(subbyte_tenant *tenants, int32_t count) {
  size_t total = 0;
  for (int32_t i = 0; i < count; ++i) {
    tenants[i].offset = tenants[i].bytes > 0 ? NOWHERE : 0;
  }
  for (subbyte_tenant *tenant; (tenant = find_largest(tenants, count)) != NULL;) {
    size_t offset = 0;
    for (const subbyte_tenant *other; (other = find_obstacle(tenants, count, tenant, offset)) != NULL;) {
      offset = align(other->offset + other->bytes);
    }
    tenant->offset = offset;
    total = offset + tenant->bytes > total ? offset + tenant->bytes : total;
  }
  return total;
}
