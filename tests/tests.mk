# Tests.  tests/unit/test_*.c: one cmocka program each against the library;
# tests/daemon/test_*.c: the same against the daemon's parts; the rest are scripts.
UNIT := $(patsubst tests/unit/%.c,%,$(sort $(wildcard tests/unit/test_*.c)))
UNIT_BIN := $(UNIT:%=$(BUILD)/tests/unit/%)
DUNIT := $(patsubst tests/daemon/%.c,%,$(sort $(wildcard tests/daemon/test_*.c)))
DUNIT_BIN := $(DUNIT:%=$(BUILD)/tests/daemon/%)

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIB_LIBS) -lcmocka -lm
$(BUILD)/tests/daemon/%: $(BUILD)/obj/tests/daemon/%.o $(TD_PARTS) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(TD_PARTS) $(LIB) $(LIBS) -lcmocka

unit: $(UNIT_BIN) $(DUNIT_BIN)
	@sh tests/run-unit.sh $(UNIT_BIN) $(DUNIT_BIN)

-include $(UNIT:%=$(BUILD)/obj/tests/unit/%.d) $(DUNIT:%=$(BUILD)/obj/tests/daemon/%.d)
.PHONY: unit
.SECONDARY:

include tests/fuzz/fuzz.mk
