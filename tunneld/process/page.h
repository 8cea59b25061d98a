/* The status page: one document, with everything that it needs. */
#ifndef TD_PROCESS_PAGE_H
#define TD_PROCESS_PAGE_H
#include <stddef.h>

const char *td_page(size_t *n);
/* A Content-Security-Policy that lets its own style and script run and nothing else. */
const char *td_page_policy(void);

#endif
