/* The heap, with counters: what is live (leak checks), what may fail (the sweep), how many bytes it has given out (the
 * process's account of memory). */
#include "lib/alloc.h"
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The counters serve the allocation-failure sweep and leak checks in tests.
 * Relaxed atomics: helper threads of the daemon (the store) allocate too. */
static long fail_countdown = -1;
static int fail_sticky;
static long made, live;
static size_t bytes, most;

static int refuse(void)
{
	long left = __atomic_load_n(&fail_countdown, __ATOMIC_RELAXED);
	if (left < 0)
		return 0;
	if (left > 0) {
		__atomic_store_n(&fail_countdown, left - 1, __ATOMIC_RELAXED);
		return 0;
	}
	if (!fail_sticky)
		__atomic_store_n(&fail_countdown, -1, __ATOMIC_RELAXED);
	return 1;
}

static void add_bytes(void *p)
{
	size_t n = malloc_usable_size(p), now = __atomic_add_fetch(&bytes, n, __ATOMIC_RELAXED);
	if (now > __atomic_load_n(&most, __ATOMIC_RELAXED))
		__atomic_store_n(&most, now, __ATOMIC_RELAXED);
}

static void *counted(void *p)
{
	if (p) {
		__atomic_fetch_add(&made, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
		add_bytes(p);
	}
	return p;
}

void *tnl_malloc(size_t n)
{
	return refuse() ? NULL : counted(malloc(n ? n : 1));
}

void *tnl_calloc(size_t n, size_t size)
{
	return refuse() ? NULL : counted(calloc(n ? n : 1, size ? size : 1));
}

void *tnl_realloc(void *p, size_t n)
{
	if (!p)
		return tnl_malloc(n);
	if (refuse())
		return NULL;
	size_t had = malloc_usable_size(p);
	void *q = realloc(p, n ? n : 1);
	if (q) {
		__atomic_fetch_add(&made, 1, __ATOMIC_RELAXED);
		__atomic_fetch_sub(&bytes, had, __ATOMIC_RELAXED);
		add_bytes(q);
	}
	return q;
}

char *tnl_strndup(const char *s, size_t n)
{
	if (n == SIZE_MAX)
		return NULL;
	char *p = tnl_malloc(n + 1);
	if (!p)
		return NULL;
	memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

char *tnl_strdup(const char *s)
{
	return tnl_strndup(s, strlen(s));
}

void tnl_free(void *p)
{
	if (p) {
		__atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
		__atomic_fetch_sub(&bytes, malloc_usable_size(p), __ATOMIC_RELAXED);
	}
	free(p);
}

void tnl_wipe(void *p, size_t n)
{
	if (!n)
		return;
	memset(p, 0, n);
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

/* --- BoringSSL's blocks --------------------------------------------------------
 * It looks whether the program has functions of these names.  Its connections and certificates are as much the peers'
 * doing as our own buffers; only the sweep and the leak checks do not know of them. */

void *tnl_ssl_alloc(size_t n) __asm__("OPENSSL_memory_alloc");
void tnl_ssl_free(void *p) __asm__("OPENSSL_memory_free");
size_t tnl_ssl_size(void *p) __asm__("OPENSSL_memory_get_size");

void *tnl_ssl_alloc(size_t n)
{
	void *p = malloc(n ? n : 1);
	if (p)
		add_bytes(p);
	return p;
}

/* Keys go this way, and wiping is left to us.  Never NULL. */
void tnl_ssl_free(void *p)
{
	size_t n = malloc_usable_size(p);
	__atomic_fetch_sub(&bytes, n, __ATOMIC_RELAXED);
	tnl_wipe(p, n);
	free(p);
}

size_t tnl_ssl_size(void *p)
{
	return malloc_usable_size(p);
}

void tnl_free_wiped(void *p, size_t n)
{
	if (p)
		tnl_wipe(p, n);
	tnl_free(p);
}

void tnl_alloc_fail_after(long countdown, int sticky)
{
	fail_sticky = sticky;
	fail_countdown = countdown;
}

long tnl_alloc_count(void)
{
	return __atomic_load_n(&made, __ATOMIC_RELAXED);
}

void tnl_alloc_resting(long blocks)
{
	__atomic_fetch_sub(&live, blocks, __ATOMIC_RELAXED);
}

long tnl_alloc_live(void)
{
	return __atomic_load_n(&live, __ATOMIC_RELAXED);
}

size_t tnl_alloc_bytes(void)
{
	return __atomic_load_n(&bytes, __ATOMIC_RELAXED);
}

size_t tnl_alloc_most(void)
{
	return __atomic_exchange_n(&most, tnl_alloc_bytes(), __ATOMIC_RELAXED);
}
